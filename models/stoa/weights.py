"""Names of the published checkpoints, and what a model is started from.

A published file is `pytorch_model.bin.<step>` (a bare state dict) or `restore.bin` (one beside the optimizer's state).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class FittedWeights:
    """A published file's tensors under our names.

    Attributes:
        weights: what the model takes.
        unused: names that the published model builds and never reads.
        absent: names of parts that this model is built without, such as objects or deeper blocks.
        missing: names of the model that the file has not.
    """

    weights: dict[str, Tensor]
    unused: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


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


def fit_published(tensors: Mapping[str, Tensor], model: nn.Module, source: str) -> FittedWeights:
    """A published state dict for `model`, which may be on the meta device; half precision becomes float32.

    ValueError for a tensor of another shape or an unknown name. Whether what is missing matters is the caller's to say.
    """
    own = model.state_dict()
    fitted = FittedWeights({})
    wrong: list[str] = []
    for published, tensor in tensors.items():
        name = own_name(published)
        if name is None:
            if not UNUSED.match(published):
                wrong.append(f"{published}: unknown name")
            fitted.unused.append(published)
            continue
        if name not in own:
            fitted.absent.append(published)
            continue
        tensor = tensor.float().reshape(own[name].shape) if tensor.numel() == own[name].numel() else tensor.float()
        if tensor.shape != own[name].shape:
            wrong.append(f"{published}: has shape {tuple(tensor.shape)}, the model's is {tuple(own[name].shape)}")
        fitted.weights[name] = tensor
    if wrong:
        listed = "\n  ".join(wrong[:20])
        raise ValueError(f"{source}: is of another model than `model` describes:\n  {listed}")
    fitted.missing.extend(name for name in own if name not in fitted.weights)
    return fitted


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


def start_from_clip(model: nn.Module, towers: Mapping[str, Tensor], sizes: StoaSizes) -> None:
    """Put CLIP's towers (under our names: `visual.`, `text.`, `logit_scale`) and their copies into a fresh model.

    ValueError if a weight of a tower is missing. New modules keep their fresh values.
    """
    own = model.state_dict()
    is_new = ("visual.object_encoder.",)
    needed = [name for name in own if name.startswith(("visual.", "text.")) and not name.startswith(is_new)]
    missing = [name for name in needed if name not in towers]
    if missing:
        raise ValueError(f"CLIP's weights lack {len(missing)} names, the first is {missing[0]}")
    weights = {name: towers[name] for name in [*needed, "logit_scale"] if name in towers}
    weights |= copies_of_clip(weights, sizes)
    with torch.no_grad():
        for name, tensor in weights.items():
            if own[name].shape != tensor.shape:
                raise ValueError(
                    f"{name}: has shape {tuple(tensor.shape)} in CLIP's file, the model's is {tuple(own[name].shape)}"
                )
            own[name].copy_(tensor)
        if sizes.text_width == sizes.embed_dim:
            positions = own["text.positional_embedding"]
            count = min(len(positions), sizes.fusion_positions)
            own["fusion.positional_embedding"][:count] = positions[:count]


def _moved(state: Mapping[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    return {target + name.removeprefix(source): state[name] for name in state if name.startswith(source)}
