"""Fit an encoder's weights to another encoder: image to video, other sizes, another kind of attention.

Names here are relative to the encoder (`blocks.0.attn.qkv.weight`).
"""

import re
from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from configs.model import TimeTable
from models.checkpoints.stored import FittedPart
from models.parts.time_table import stretch_times

TEMPORAL = re.compile(r"blocks\.\d+\.temporal_(attn|norm1|fc)\.")
SCALING = re.compile(r"blocks\.\d+\.temporal_scaling$")
TIME = "time_embed"
PLACES = "pos_embed"


def fit_encoder(
    found: Mapping[str, Tensor], own: Mapping[str, Tensor], time_table: TimeTable = "nearest"
) -> FittedPart:
    """Make the weights `found` fit an encoder with the state `own`; the caller reports what still differs.

    From an image encoder, the attention over time and its norm copy the attention within frames, and `temporal_fc` and
    the time embedding are zero. So the model starts as the image model, applied to each frame. Weights for time that
    `own` does not have are left. Position embeddings are resized bicubically, time embeddings as `time_table` says.
    """
    fitted = FittedPart(dict(found))
    # Leave what only the file has.
    _leave(fitted, own, TEMPORAL, "attention of this model is not divided")
    _leave(fitted, own, SCALING, "model.temporal_scaling is off, so outputs differ from the file's model")
    _leave(fitted, own, re.compile(f"{TIME}$"), "attention of this model is within frames alone")

    # Make what an image encoder lacks.
    is_image = not any(TEMPORAL.match(name) for name in found)
    if is_image and any(TEMPORAL.match(name) for name in own):
        fitted.weights |= _temporal_from_spatial(fitted.weights, own)
        fitted.notes.append("temporal attention and its norm are copies of the spatial ones, temporal_fc is zero")
    if is_image and TIME in own and TIME not in found:
        fitted.weights[TIME] = torch.zeros_like(own[TIME])
        fitted.notes.append("time_embed is zero")

    # A scaling of zero is a factor of 1, as tanh(0) + 1 = 1.
    scalings = [name for name in own if SCALING.match(name)]
    if scalings and not any(name in found for name in scalings):
        fitted.weights |= {name: torch.zeros_like(own[name]) for name in scalings}
        fitted.notes.append("temporal_scaling is zero, a factor of 1")

    # Resize what has another size.
    for name in [PLACES, TIME, *scalings]:
        _resize(fitted, name, own, time_table if name == TIME else "nearest")
    return fitted


def resize_places(embedding_1ND: Tensor, num_patches: int) -> Tensor:
    """Resize a square position embedding bicubically to `num_patches`; the class token's stays as it is."""
    side, wanted = round((embedding_1ND.shape[1] - 1) ** 0.5), round(num_patches**0.5)
    grid = rearrange(embedding_1ND[:, 1:].float(), "1 (H W) D -> 1 D H W", H=side)
    grid = F.interpolate(grid, size=(wanted, wanted), mode="bicubic", align_corners=False)
    return torch.cat([embedding_1ND[:, :1], rearrange(grid, "1 D H W -> 1 (H W) D").to(embedding_1ND.dtype)], dim=1)


def _leave(fitted: FittedPart, own: Mapping[str, Tensor], pattern: re.Pattern[str], reason: str) -> None:
    """Move weights of a kind that only the file has to `left`."""
    if any(pattern.match(name) for name in own):
        return
    names = [name for name in fitted.weights if pattern.match(name)]
    if names:
        fitted.left[reason] = names
        fitted.weights = {name: tensor for name, tensor in fitted.weights.items() if name not in names}


def _temporal_from_spatial(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    made = {}
    for name in own:
        spatial = name.replace(".temporal_attn.", ".attn.").replace(".temporal_norm1.", ".norm1.")
        if ".temporal_fc." in name:
            made[name] = torch.zeros_like(own[name])
        elif spatial != name and spatial in found:
            made[name] = found[spatial]
    return made


def _resize(fitted: FittedPart, name: str, own: Mapping[str, Tensor], time_table: TimeTable) -> None:
    """Resize one embedding (1, N, D) if only its N differs; over time as `time_table` says."""
    if name not in own or name not in fitted.weights:
        return
    given, wanted = fitted.weights[name], own[name].shape
    if given.ndim != 3 or given.shape[::2] != wanted[::2] or given.shape[1] == wanted[1]:
        return

    change = f"{name}: {given.shape[1]} -> {wanted[1]}"
    if name != PLACES:
        fitted.weights[name] = stretch_times(given, wanted[1], time_table)
        fitted.notes.append(f"{change} frames, {time_table}")
    elif round((given.shape[1] - 1) ** 0.5) ** 2 == given.shape[1] - 1:
        fitted.weights[name] = resize_places(given, wanted[1] - 1)
        fitted.notes.append(f"{change} places, bicubic")
