"""Squares of quadtrees as tokens: patches merge before the first block, and every video keeps a number of its own.

`models.parts.quadtree` says which square holds each patch, by the patches' embeddings without their places. A token is
the mean of its patches, places included. Rows of a batch are ragged, see `models.parts.ragged`.

Shapes: B videos, T frames, L patches a frame, N = T L, M tokens of the longest row, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from configs.aggregation import AggregationConfig
from configs.squares import squares_of_share
from models.parts.merging import MergePlan
from models.parts.precision import at_least_float32, without_autocast
from models.parts.quadtree import (
    Trees,
    joined_by_count,
    joined_by_threshold,
    num_squares,
    trees_by_count,
    trees_by_threshold,
)
from models.parts.ragged import row_length
from models.parts.run_length import KeptPatches, RunLength

NUMBERS_AT_ONCE = {"cpu": 2**20, "other": 2**26}
"""Numbers of patches' embeddings that are compared at a time, in float64: on a CPU as many as stay in its cache."""


class Squares(NamedTuple):
    """Which token holds each patch of each video; all without gradient.

    Attributes:
        slots: (B, N) int64, for each patch, in the encoder's order, the place of its token.
        first: (B, M) int64, the first patch of each token, by its flat index frame by frame; 0 for padding.
        areas: (B, M) int64, how many patches each token holds; 0 for padding. A row adds up to N.
        origins: (B, T, L) int64, the same as `slots` for every frame and patch.
        counts: the number of tokens of each video, where rows have padding and the host knows.
    """

    slots: Tensor
    first: Tensor
    areas: Tensor
    origins: Tensor
    counts: tuple[int, ...] | None = None

    @property
    def mask(self) -> Tensor:
        """(B, M) bool, False for padding."""
        return self.areas > 0

    def select(self, tokens_BND: Tensor) -> Tensor:
        """The mean (B, M, D) of each token's patches, in their order of the encoder; zero for padding."""
        batch, longest = self.areas.shape
        row = longest * torch.arange(batch, device=self.slots.device)[:, None]
        values = at_least_float32(tokens_BND).flatten(0, 1)
        sums = values.new_zeros(batch * longest, values.shape[-1]).index_add(0, (row + self.slots).flatten(), values)
        means = sums.view(batch, longest, -1) / self.areas.clamp(min=1).unsqueeze(-1)
        return means.to(tokens_BND.dtype)

    def sizes(self, weighs: bool) -> Tensor:
        """What attention takes for sizes, (B, M) float32: 1 or how many patches a token holds, and 0 for padding."""
        return self.areas.float() if weighs else self.mask.float()

    def as_plan(self, order: Tensor) -> MergePlan:
        """The plan of one video. `order` (T, L) is each patch's flat index for the encoder."""
        assert len(self.slots) == 1, "plans of several videos are no rectangle"
        keep = order.flatten()[self.first[0, : int(self.mask.sum())]]
        leaves = torch.ones_like(self.slots[0], dtype=torch.bool).index_fill(0, keep, False)
        source = leaves.nonzero().squeeze(1)
        return MergePlan(keep[None], source[None], self.slots[:, source])


@dataclass(frozen=True)
class Quadtree:
    """How patches become squares: by thresholds of cosines, or so that the share `keep` is left.

    Attributes:
        spatial: a square stays whole if its cosine with each part is this or more.
        temporal: squares of neighbouring frames are joined if theirs is; None joins none.
        keep: None for the thresholds. Else each video has thresholds of its own, and is left with the nearest number
            from below.
        root_level: where trees begin, in levels below the coarsest.
        weigh_lengths: whether a token counts as often as it has patches, in attention.
        patch_major: whether the encoder's tokens go patch by patch, not frame by frame.
    """

    spatial: float
    temporal: float | None
    keep: float | None
    root_level: int
    weigh_lengths: bool
    patch_major: bool

    has_sizes = True
    """Attention has to know sizes, those of padding at least."""

    @classmethod
    def of(cls, aggregation: AggregationConfig, weighs: bool, patch_major: bool = False) -> "Quadtree | None":
        """What a configuration says; None for another reducer."""
        if aggregation.reducer != "quadtree":
            return None
        thresholds = aggregation.spatial_threshold, aggregation.temporal_threshold
        return cls(*thresholds, aggregation.keep, aggregation.root_level, weighs, patch_major)

    @torch.no_grad()
    def plan(self, patches_BTLD: Tensor, grid: tuple[int, int], few_lengths: bool = False) -> Squares:
        """Decide for the patches of videos, each alone, by their embeddings in `grid` rows and columns.

        `few_lengths` rounds the length of rows up, for an encoder that compiles a graph for each.
        """
        compared = patches_BTLD.unflatten(2, grid)
        at_once = NUMBERS_AT_ONCE.get(compared.device.type, NUMBERS_AT_ONCE["other"])
        videos = compared.split(max(1, at_once // compared[0].numel()))
        held_by = torch.cat([self._trees(part).held_by for part in videos])

        left = tuple(num_squares(held_by).tolist())
        longest = row_length(max(left), held_by[0].numel(), few_lengths)
        if self.keep is not None:
            longest = squares_of_share(self.keep, compared.shape[1], *grid, self.root_level)[1]
        squares = squares_of(held_by, longest, self.patch_major)
        # A graph is of one length, and would be of each number of squares that it is told.
        has_padding = any(count < longest for count in left)
        return squares._replace(counts=left) if has_padding and not few_lengths else squares

    def _trees(self, compared_BTHWK: Tensor) -> Trees:
        if self.keep is not None:
            num_frames, height, width = compared_BTHWK.shape[1:4]
            in_frames, left = squares_of_share(self.keep, num_frames, height, width, self.root_level)
            trees = trees_by_count(compared_BTHWK, in_frames, self.root_level)
            return joined_by_count(trees, compared_BTHWK, left)

        trees = trees_by_threshold(compared_BTHWK, self.spatial, self.root_level)
        return trees if self.temporal is None else joined_by_threshold(trees, compared_BTHWK, self.temporal)


def plan_patches(
    before_blocks: RunLength | Quadtree | None,
    video_BTCHW: Tensor,
    embed: Callable[[Tensor], Tensor],
    patch_size: int,
    few_lengths: bool,
) -> KeptPatches | Squares | None:
    """Which patches of uint8 or normalised videos stay or merge before the first block; None unless some do.

    `embed` gives the patches (B, T, L, D) of a video without their places, which quadtrees compare.
    """
    if before_blocks is None:
        return None
    if isinstance(before_blocks, RunLength):
        return before_blocks.plan(video_BTCHW, few_lengths)

    with without_autocast(video_BTCHW.device):
        patches_BTLD = embed(video_BTCHW)
    grid = (video_BTCHW.shape[-2] // patch_size, video_BTCHW.shape[-1] // patch_size)
    return before_blocks.plan(patches_BTLD, grid, few_lengths)


def squares_of(held_by_BTHW: Tensor, longest: int, patch_major: bool) -> Squares:
    """The tokens of squares that are held by their first patches, in the order of these, in rows of `longest`."""
    held_by, frames = held_by_BTHW.flatten(1), held_by_BTHW.shape[1]
    is_first = held_by == torch.arange(held_by.shape[1], device=held_by.device)
    place = is_first.long().cumsum(dim=1) - 1
    slots = place.gather(1, held_by)

    areas = held_by.new_zeros(len(held_by), longest).scatter_add(1, slots, torch.ones_like(slots))
    first = is_first.logical_not().long().argsort(dim=1, stable=True)[:, :longest]
    first = first.masked_fill(areas == 0, 0)

    origins = slots.unflatten(1, (frames, -1))
    in_order = origins.transpose(1, 2).flatten(1) if patch_major else slots
    return Squares(in_order, first, areas, origins)
