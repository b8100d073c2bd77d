"""Trace one video through the encoder: after each block, which cells share a token and how similar merged tokens are.

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
        merged: between tokens that leave and the tokens they merge into; None if they are dropped.
        others: between all other pairs: frames (by their mean key), patches of one frame, or all tokens.
    """

    block: int
    axis: Literal["time", "space", "joint"]
    merged: float | None
    others: float


class Trace(NamedTuple):
    """The trace of one video through the encoder, on the CPU.

    Attributes:
        frames: (T, H, W, 3) uint8, the frames that were encoded.
        grid: rows and columns of patches.
        blocks: after each block (T, L) int64: cells with the same number are one token, -1 is dropped.
        merges_frames: whether whole frames merge; joint attention merges cells of all frames.
        similarities: one for each axis of each block where something leaves.
        tokens: (N, D), the encoder's output, class token first.
        origins: (T, L) int64, the index in `tokens` of each cell's token, -1 if it was dropped.
    """

    frames: NDArray[np.uint8]
    grid: tuple[int, int]
    blocks: list[NDArray[np.int64]]
    merges_frames: bool
    similarities: list[Similarity]
    tokens: Tensor
    origins: NDArray[np.int64]


def trace_video(model: Trainable, frames_TCHW: Tensor, steps: list[list[AggregationStep]] | None = None) -> Trace:
    """Encode uint8 frames (T, 3, H, W), on the model's device, and record what the encoder does.

    `steps`, an empty list, receives each block's steps as soon as the block begins. ValueError if nothing merges or is
    dropped.
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

    # A block without steps leaves the tokens as they were.
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
    """The mean similarity of the pairs that a step merges, and of all other pairs on its axis."""
    key = step.compared.mean(dim=1) if step.axis == "time" else step.compared
    unit = F.normalize(key.double(), dim=-1)
    num_tokens = unit.shape[-2]

    # Sum over all pairs without a pairwise matrix: |sum x|^2 counts every pair twice, plus each token with itself.
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
    """The cosine (T, L) of a text (E,) with each cell's token, projected to the shared space; NaN if dropped."""
    device, origins = next(cast(nn.Module, model).parameters()).device, np.asarray(encoded.origins)
    with torch.no_grad():
        regions = model.project_tokens(encoded.tokens.to(device)).cpu()
    cosine = (regions @ text_embedding).double().numpy()
    return np.where(origins < 0, np.nan, cosine[origins])
