"""Names of the published checkpoints, and what a model is started from.

A published file is `pytorch_model.bin.<step>` (a bare state dict) or `restore.bin` (one beside the optimizer's state).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.stoa.sizes import StoaSizes

PREFIX = "clip."
# Beginnings of published names, without their prefix, and of ours; the first that fits counts.
NAMES = (
    ("visual.transformer.object_encoder.", "visual.object_encoder."),
    ("visual.", "visual."),
    ("object_fusion.", "object_fusion."),
    ("object_act_fusion.", "object_act_fusion."),
    ("fusion_transformer.", "fusion.transformer."),
    ("fusion_positional_embedding", "fusion.positional_embedding"),
    ("token_embedding.", "text.token_embedding."),
    ("positional_embedding", "text.positional_embedding"),
    ("transformer.", "text.transformer."),
    ("ln_final.", "text.ln_final."),
    ("text_projection", "text.text_projection"),
    ("logit_scale", "logit_scale"),
    ("object_frame_pos_emb", "object_frame_pos_emb"),
    ("object_cls_embedding", "object_cls_embedding"),
    ("object_action", "object_action"),
    ("fusion_proj", "fusion_proj"),
    ("fusion_logit_bias", "fusion_logit_bias"),
    ("fusion_match_matrix", "fusion_match_matrix"),
    ("fusion_unmatch_matrix", "fusion_unmatch_matrix"),
)
# What the published model builds and never uses, or uses no more.
UNUSED = re.compile(
    r"(?:clip\.)?(?:object_fusion_positional_embedding|object_text_fusion_positional_embedding|object_alignment_proj"
    r"|object_logit_bias|lm_head\.|input_resolution|context_length|vocab_size"
    r"|object_(?:act_)?fusion\.(?:class_embedding|positional_embedding|conv1\.|ln_pre\.|transformer\.object_encoder\.))"
    r"|(?:obj_ln|obj_proj|cross|loss_fct)(?:\.|$)"
)


PARTS = ("visual.object_encoder.", "visual.", "text.", "fusion.", "object_fusion.", "object_act_fusion.")
"""Modules that a file has as a whole or not at all; every other weight is a part of its own."""
TOWERS = ("visual.", "text.")


@dataclass(frozen=True)
class LoadedWeights:
    """What became of a file.

    Attributes:
        taken: how many tensors the model took.
        unused: names that the published model builds and never reads.
        absent: names of parts that this model is built without, such as objects or deeper blocks.
        copied: names that the file lacks and that were copied from CLIP's towers.
        fresh: names that the file lacks and that keep their fresh values.
    """

    taken: int
    unused: list[str]
    absent: list[str]
    copied: list[str]
    fresh: list[str]


def own_name(published: str) -> str | None:
    """Our name of a published tensor; None if the model has no use for it."""
    if UNUSED.match(published):
        return None
    name = published.removeprefix(PREFIX)
    return next((ours + name.removeprefix(theirs) for theirs, ours in NAMES if name.startswith(theirs)), None)


def published_name(name: str) -> str:
    """The published name of one of our tensors."""
    theirs, ours = next((theirs, ours) for theirs, ours in NAMES if name.startswith(ours))
    return PREFIX + theirs + name.removeprefix(ours)


def model_state(loaded: Mapping[str, object]) -> Mapping[str, Tensor]:
    """The state dict in a loaded file: the file itself, or what `restore.bin` and our own exports hold it under."""
    inner = loaded.get("model_state_dict", loaded)
    if not isinstance(inner, Mapping) or not all(isinstance(tensor, Tensor) for tensor in inner.values()):
        raise ValueError("holds no state dict: a pytorch_model.bin.<step> or restore.bin of STOA-VLP is needed")
    return {str(name).removeprefix("module."): tensor for name, tensor in inner.items()}


def read_published(path: Path) -> Mapping[str, Tensor]:
    """The state dict of `pytorch_model.bin.<step>` or `restore.bin`. ValueError if the file holds another thing."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise anything
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: is no file of plain tensors; nothing of it was run ({text})") from None
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path}: holds {type(loaded).__name__}, not a state dict")
    try:
        return model_state(loaded)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def load_published(model: nn.Module, tensors: Mapping[str, Tensor], sizes: StoaSizes, source: str) -> LoadedWeights:
    """Put a published state dict into a model; half precision becomes float32.

    A part that the file lacks as a whole keeps its fresh values, or is copied from CLIP's towers as at the beginning of
    pre-training. ValueError for a tensor of another shape, an unknown name, a part of which something is missing, or a
    missing tower; nothing is loaded then.
    """
    own = model.state_dict()
    fitted, unused, absent = fit_published(tensors, own, source)
    missing = [name for name in own if name not in fitted]
    has_some = {_part(name) for name in fitted}
    broken = [name for name in missing if _part(name) in has_some or _part(name) in TOWERS]
    if broken:
        raise ValueError(f"{source}: lacks {len(broken)} weights of parts that it has, the first is {broken[0]}")

    copies = copies_of_clip(fitted, sizes)
    copied = [name for name in missing if name in copies]
    model.load_state_dict({**fitted, **{name: copies[name] for name in copied}}, strict=False)
    fresh = [name for name in missing if name not in copies]
    return LoadedWeights(len(fitted), unused, absent, copied, fresh)


def fit_published(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """A published state dict under our names, in the shapes of `own`; then the names that are unused, and absent."""
    fitted: dict[str, Tensor] = {}
    unused: list[str] = []
    absent: list[str] = []
    wrong: list[str] = []
    for published, tensor in tensors.items():
        name = own_name(published)
        if name is None:
            unused.append(published)
            if not UNUSED.match(published):
                wrong.append(f"{published}: unknown name")
        elif name not in own:
            absent.append(published)
        elif tensor.squeeze().shape != own[name].squeeze().shape:
            wrong.append(f"{published}: has shape {tuple(tensor.shape)}, the model's is {tuple(own[name].shape)}")
        else:
            fitted[name] = tensor.float().reshape(own[name].shape)
    if wrong:
        listed = "\n  ".join(wrong[:20])
        raise ValueError(f"{source}: is of another model than `model` describes:\n  {listed}")
    return fitted, unused, absent


def to_published(state: Mapping[str, Tensor], sizes: StoaSizes) -> dict[str, Tensor]:
    """Our weights under the published names and in the published shapes.

    What the published code builds and never reads is not in it; that code keeps its fresh values for missing names.
    """
    published = {published_name(name): tensor for name, tensor in state.items()}
    action = f"{PREFIX}object_action"
    if action in published:
        published[action] = published[action].reshape(1, 1, sizes.num_actions, sizes.vision_width)
    return published


@torch.no_grad()
def copies_of_clip(state: Mapping[str, Tensor], sizes: StoaSizes) -> dict[str, Tensor]:
    """What the fusion, trajectory and action encoders copy from CLIP's towers when training starts from them.

    `state` holds the towers under our names. Fusion blocks are the text tower's first ones, the first fusion positions
    the text tower's; the two small encoders take the video tower's last two blocks, `ln_post` and `proj`.
    """
    copied: dict[str, Tensor] = {}
    if sizes.text_width == sizes.embed_dim:
        for block in range(min(sizes.fusion_depth, sizes.text_depth)):
            copied |= _moved(state, f"text.transformer.resblocks.{block}.", f"fusion.transformer.resblocks.{block}.")

    encoders = {"object_fusion": 1} if sizes.objects == "fusion" else {}
    encoders |= {"object_act_fusion": 2} if sizes.actions else {}
    for encoder, depth in encoders.items():
        for name in ("ln_post.weight", "ln_post.bias", "proj"):
            copied[f"{encoder}.{name}"] = state[f"visual.{name}"]
        for block in range(depth):
            source = f"visual.transformer.resblocks.{sizes.vision_depth - 2 + block}."
            copied |= _moved(state, source, f"{encoder}.transformer.resblocks.{block}.")
    return {name: tensor.clone() for name, tensor in copied.items()}


def start_from_clip(model: nn.Module, tensors: Mapping[str, Tensor], sizes: StoaSizes, source: str) -> None:
    """Put CLIP's towers (as `read_clip` gives them) and their copies into a fresh model; the rest keeps its values.

    ValueError if a weight of a tower is missing or of another shape.
    """
    load_published(model, tensors, sizes, source)
    state = model.state_dict()
    if sizes.text_width == sizes.embed_dim:
        # The copy of the text tower's positions is the beginning of a longer table.
        positions = state["text.positional_embedding"]
        count = min(len(positions), sizes.fusion_positions)
        with torch.no_grad():
            state["fusion.positional_embedding"][:count].copy_(positions[:count])


def _part(name: str) -> str:
    return next((part for part in PARTS if name.startswith(part)), name)


def _moved(state: Mapping[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    return {target + name.removeprefix(source): state[name] for name in state if name.startswith(source)}
