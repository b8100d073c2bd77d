"""What the encoder does to one video, block by block: which cells are one token, and how similar those are that merge.

A cell is one patch of one frame. Shapes: T frames, L patches a frame, N tokens, D width, K head width.
"""

from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from inference.api import EncodedTokens
from models.parts.aggregation import AggregationStep
from models.protocols import DualEncoder, Trainable


class Similarity(NamedTuple):
    """Mean cosines between the keys of one axis of one block, counted from 1.

    Attributes:
        merged: of the tokens that leave with those they merge into; None where they are dropped.
        others: of all other pairs: of frames (by the mean key of a frame), of patches of a frame, or of all tokens.
    """

    block: int
    axis: Literal["time", "space", "joint"]
    merged: float | None
    others: float


class Trace(NamedTuple):
    """One video on its way through the encoder, on the CPU.

    Attributes:
        frames: (T, H, W, 3) uint8, what the encoder was shown.
        grid: rows and columns of patches.
        blocks: after each block (T, L) int64: cells with the same number are one token, -1 is dropped.
        merges_frames: whether whole frames merge; joint attention merges cells of all frames.
        similarities: one for each axis of each block where something leaves.
        tokens: (N, D), what comes out, class token first.
        origins: (T, L) int64, the place in `tokens` of each cell's token, -1 for a dropped one.
    """

    frames: NDArray[np.uint8]
    grid: tuple[int, int]
    blocks: list[NDArray[np.int64]]
    merges_frames: bool
    similarities: list[Similarity]
    tokens: Tensor
    origins: NDArray[np.int64]


def trace_video(model: Trainable, frames_TCHW: Tensor, steps: list[list[AggregationStep]] | None = None) -> Trace:
    """Encode uint8 frames (T, 3, H, W), which lie on the model's device, and keep what its encoder does.

    `steps`, an empty list, gets what each block does as soon as it begins. ValueError if nothing merges or is dropped.
    """
    steps = [] if steps is None else steps
    with torch.no_grad():
        encoded = model.trace_video(frames_TCHW.unsqueeze(0), steps)
    if not any(steps):
        raise ValueError(
            "nothing merges in this model, so there is nothing to show; add for instance aggregation.reducer=geometry "
            "aggregation.frames_per_block=1 aggregation.patches_per_block=4"
        )
    assert encoded.origins is not None
    origins = encoded.origins[0].cpu().numpy()
    blocks, held = [], np.arange(origins.size).reshape(origins.shape)
    for of_block in steps:
        held = of_block[-1].origins[0].cpu().numpy() if of_block else held
        blocks.append(held)
    return Trace(
        frames=frames_TCHW.permute(0, 2, 3, 1).cpu().numpy(),
        grid=(frames_TCHW.shape[-2] // model.patch_size, frames_TCHW.shape[-1] // model.patch_size),
        blocks=blocks,
        merges_frames=not any(step.axis == "joint" for found in steps for step in found),
        similarities=[similarity(block, step) for block, found in enumerate(steps, start=1) for step in found],
        tokens=encoded.tokens[0].cpu(),
        origins=origins,
    )


def similarity(block: int, step: AggregationStep) -> Similarity:
    """How similar the tokens are that a step merges, and all other pairs of its axis."""
    key = step.key.mean(dim=1) if step.axis == "time" else step.key
    unit = F.normalize(key.double(), dim=-1)
    num_tokens = unit.shape[-2]
    # Of all pairs at once: the square of a sum holds every pair twice, and each token with itself.
    total = float((unit.sum(dim=-2).square().sum() - unit.square().sum()) / 2)
    pairs = unit[..., 0, 0].numel() * num_tokens * (num_tokens - 1) // 2
    if step.plan.destination is None:
        return Similarity(block, step.axis, None, total / pairs)
    target = step.plan.keep.gather(-1, step.plan.destination)
    left, right = (torch.take_along_dim(unit, index.unsqueeze(-1), dim=-2) for index in (step.plan.source, target))
    merged = (left * right).sum(dim=-1)
    others = (total - float(merged.sum())) / max(1, pairs - merged.numel())
    return Similarity(block, step.axis, float(merged.mean()), others)


def grounded(model: DualEncoder, encoded: Trace | EncodedTokens, text_embedding: Tensor) -> NDArray[np.float64]:
    """Cosine (T, L) of a text (E,) with the token of each cell, projected to the shared space; NaN where dropped."""
    device, origins = next(cast(nn.Module, model).parameters()).device, np.asarray(encoded.origins)
    with torch.no_grad():
        regions = model.project_tokens(encoded.tokens.to(device)).cpu()
    cosine = (regions @ text_embedding).double().numpy()
    return np.where(origins < 0, np.nan, cosine[origins])
