"""Names of TVTSv2's published files, and how a model starts from CLIP.

Published files name the text tower `text_*`, may put `module.` before every name, and have no sorting head. The video
tower and the sorting head have our names.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from models.parts.clip.files import describe, image_sizes_of
from models.parts.clip.names import IMAGE
from models.tvts.video_tower import VideoTower

_TEXT = (
    ("text_model.transformer.", "text_model."),
    ("text_model.token_embedding.", "text_token_embedding."),
    ("text_model.positional_embedding", "text_positional_embedding"),
    ("text_model.ln_final.", "text_ln_final."),
    ("text_model.text_projection", "text_projection"),
)
"""Beginnings of our names of the text tower, and of the published ones."""
SORT_HEAD = "pred_model."
MOTION = "conv1_motion.weight"
FRESH_PARTS = r"temporal_embedding|conv1_motion\.weight|transformer\.resblocks\.\d+\.(timeattn|ln_3)\..*"
"""What of the video tower CLIP does not have."""


def published_name(name: str) -> str:
    """The published name of one of ours."""
    for ours, theirs in _TEXT:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def our_name(name: str) -> str:
    """Our name of a published one."""
    name = name.removeprefix("module.")
    for ours, theirs in _TEXT:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def matches(names: Mapping[str, object]) -> bool:
    """Whether these are the names of a published TVTSv2."""
    bare = {name.removeprefix("module.") for name in names}
    return {"video_model.temporal_embedding", "text_token_embedding.weight"} <= bare


def from_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under our names."""
    return {our_name(name): tensor for name, tensor in tensors.items()}


def to_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the published names, without the sorting head; ValueError for what no published model has."""
    if f"video_model.{MOTION}" in tensors:
        raise ValueError("model.motion: is ours, and published files have no place for its weights")
    return {published_name(name): tensor for name, tensor in tensors.items() if not name.startswith(SORT_HEAD)}


def load_clip_video(tower: VideoTower, tensors: Mapping[str, Tensor], source: str) -> None:
    """Start the video tower from CLIP's image tower."""
    image = {name.removeprefix(IMAGE): tensor for name, tensor in tensors.items() if name.startswith(IMAGE)}
    found = {clip_to_video(name): tensor for name, tensor in image.items()}
    own = {name: tensor for name, tensor in tower.state_dict().items() if not is_of_time(name)}
    differing = [name for name in own if name in found and found[name].shape != own[name].shape]
    if differing or found.keys() != own.keys():
        lacking = sorted(own.keys() - found.keys())
        if not image:
            raise ValueError(f"{source}: has no image tower")
        if "proj" in lacking or "conv1.weight" in lacking:
            raise ValueError(f"{source}: its image tower lacks {', '.join(lacking[:5])}")
        raise ValueError(
            f"{source}: its image tower is {describe(image_sizes_of(image))}; the model's is {describe(tower.image)}"
        )
    tower.load_state_dict(found, strict=False)


def fresh_time(tower: VideoTower) -> None:
    """Make the tower CLIP frame by frame: without time, whose embedding is random in a fresh model."""
    torch.nn.init.zeros_(tower.temporal_embedding)


def is_of_time(name: str) -> bool:
    """Whether a tensor of the video tower is one that CLIP does not have."""
    return re.fullmatch(FRESH_PARTS, name) is not None


def is_in_time(name: str) -> bool:
    """Whether a tensor of the video tower makes queries, keys and values of attention over time."""
    return re.fullmatch(r"transformer\.resblocks\.\d+\.timeattn\.qkv\.(weight|bias)", name) is not None


def clip_to_video(name: str) -> str:
    """Our name of a tensor of CLIP's image tower, both without prefix."""
    return name.replace("attn.in_proj_", "attn.qkv.").replace("attn.out_proj.", "attn.proj.")


def video_to_clip(name: str) -> str:
    """CLIP's name of a tensor that the video tower shares with its image tower."""
    return name.replace("attn.qkv.", "attn.in_proj_").replace("attn.proj.", "attn.out_proj.")
