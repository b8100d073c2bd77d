"""STOA-VLP's model of a case, and the cases of its branches one by one."""

import torch
from torch import Tensor

from models.stoa.fusion import ClipMemory
from models.stoa.model import StoaModel, TextFeatures, VideoFeatures
from models.stoa.objects import ClipObjects, ObjectEncoder
from models.stoa.sizes import StoaSizes
from models.stoa.weights import fit_published
from tests.parity.cases import Meta, Tensors, weights_of

WEIGHTS = "state_dict."


def sizes_of(meta: Meta) -> StoaSizes:
    """The model's sizes, all read from the case."""
    return StoaSizes(
        image_size=meta["image_size"],
        patch_size=meta["patch_size"],
        num_frames=meta["num_frames"],
        vision_width=meta["vision_width"],
        vision_depth=meta["depth"],
        vision_heads=meta["vision_heads"],
        embed_dim=meta["embed_dim"],
        text_width=meta["embed_dim"],
        text_depth=meta["text_depth"],
        text_heads=meta["text_heads"],
        context_length=meta["context_length"],
        vocab_size=meta["vocab_size"],
        max_words=meta["max_words"],
        fusion_depth=meta["fusion_depth_run"],
        fusion_heads=meta["text_heads"],
        fusion_positions=meta["fusion_positions"],
        objects=meta.get("object_fuse", "fusion"),
        object_layer=meta.get("object_layer", 0),
        objects_per_frame=meta["objects_per_frame"],
        num_trajectories=meta["num_trajectories"],
        actions=meta.get("actions", True),
        num_actions=meta["num_actions"],
    )


def build_model(tensors: Tensors, meta: Meta) -> StoaModel:
    """The model of a case with the weights that the case holds."""
    model = StoaModel(sizes_of(meta)).eval()
    fitted, _, _ = fit_published(weights_of(tensors, WEIGHTS), model.state_dict(), "the case")
    model.load_state_dict(fitted, strict=False)
    return model


def objects_of(tensors: Tensors) -> ClipObjects | None:
    """The boxes of a case, if it has any."""
    if "boxes" not in tensors:
        return None
    return ClipObjects(tensors["boxes"], tensors["box_classes"], tensors["trajectory_ids"])


def encode(model: StoaModel, tensors: Tensors, detach: bool) -> tuple[VideoFeatures, TextFeatures, ClipMemory]:
    """Clips and texts; the memory's frames, and the texts' states, get no gradient where `detach` says so."""
    video = model.encode_video(tensors["frames"], objects_of(tensors))
    texts = model.encode_text(tensors["input_ids"], tensors["attention_mask"])
    if not detach:
        return video, texts, video.memory
    return video, texts._replace(states=texts.states.detach()), video.memory.with_detached_frames()


def fusion_input(model: StoaModel, memory: ClipMemory, placed: Tensor, text_mask: Tensor) -> Tensor:
    """All that the fusion encoder reads, with zeros for padding."""
    prefix, prefix_mask = model.fusion.prefix(memory)
    return torch.cat([masked_out(prefix, prefix_mask), masked_out(placed, text_mask)], dim=1)


def masked_out(tensor: Tensor, mask: Tensor) -> Tensor:
    """Zeros where the mask is 0, as the cases store them."""
    return tensor * mask.unsqueeze(-1)


@torch.no_grad()
def check_visual(tensors: Tensors, meta: Meta) -> Tensors:
    """The video tower with or without objects in it."""
    if "boxes" not in tensors:
        meta = {**meta, "object_fuse": "none"}
    model = build_model(tensors, meta)
    objects = None
    if "boxes" in tensors:
        # This branch reads no classes.
        objects = ClipObjects(tensors["boxes"], torch.empty(0), torch.empty(0))
    encoded = model.visual.encode_clips(tensors["frames"], objects)
    found = {"frame_features": encoded.frames, "patch_tap": encoded.tap}
    if encoded.objects is not None and objects is not None:
        found |= {"object_tokens": encoded.objects, "object_padding": objects.padding.long()}
    return found


@torch.no_grad()
def check_objects(tensors: Tensors, meta: Meta) -> Tensors:
    """The object encoder alone."""
    encoder = ObjectEncoder(meta["vision_width"], meta["num_frames"], meta["objects_per_frame"])
    prefix = "clip.visual.transformer.object_encoder."
    encoder.load_state_dict(weights_of(tensors, WEIGHTS + prefix))
    grid, boxes = meta["grid"], tensors["boxes"]
    patch_size = meta["image_size"] // grid
    tokens = encoder(tensors["tokens"][:, :, 1:], boxes, (grid, grid), patch_size)
    return {"object_tokens": tokens, "object_padding": (boxes[..., 0] == -1).long()}


@torch.no_grad()
def check_trajectory(tensors: Tensors, meta: Meta) -> Tensors:
    """Object tokens to trajectories."""
    model = build_model(tensors, meta)
    tokens = tensors["object_tokens"] + model.object_frame_pos_emb[:, None]
    ids = tensors["trajectory_ids"]
    trajectories = model.object_fusion(
        tokens.flatten(1, 2), tensors["box_classes"].flatten(1, 2), ids, model.object_cls_embedding
    )
    return {"trajectories": trajectories, "trajectory_mask": (ids != 0).long()}


@torch.no_grad()
def check_action(tensors: Tensors, meta: Meta) -> Tensors:
    """Patches and object tokens to actions."""
    model = build_model(tensors, meta)
    tokens = tensors["object_tokens"] + model.object_frame_pos_emb[:, None]
    padding = tensors["object_padding"].bool()
    return {"actions": model.object_act_fusion(model.object_action, tensors["patch_tap"], tokens, padding)}


@torch.no_grad()
def check_fusion(tensors: Tensors, meta: Meta) -> Tensors:
    """The fusion encoder's input and its outputs by kind."""
    model = build_model(tensors, meta)
    fusion = model.fusion
    memory = ClipMemory(
        tensors["frame_features"], tensors["trajectories"], tensors["trajectory_mask"].bool(), tensors["actions"]
    )
    text_mask = tensors["attention_mask"]
    placed = fusion.place_text(tensors["text_tokens"], text_mask)
    fused = fusion(memory, placed, text_mask)
    assert fused.trajectories is not None and fused.actions is not None
    return {
        "fusion_input": fusion_input(model, memory, placed, text_mask),
        "frames_out": fused.frames,
        "v_sep_out": fused.separator,
        "trajectories_out": masked_out(fused.trajectories, tensors["trajectory_mask"]),
        "actions_out": fused.actions,
        "text_out": masked_out(fused.text, text_mask),
    }
