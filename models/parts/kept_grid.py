"""Divided attention over some of a clip's patches: their tokens lie in a row, and in a grid where they attend.

Linear layers, norms and the MLP see the row. For attention, queries, keys and values are put into the grid of frames
and patches, whose empty places are hidden by their size 0.
Shapes: B batch, T frames, L patches a frame, M tokens of the longest row, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.parts.merging import take
from models.parts.run_length import KeptPatches


class KeptGrid(NamedTuple):
    """Where the tokens of a row lie in the grid.

    Attributes:
        keep: (B, M) int64, flat indices of the patches, frame by frame; padding has empty places of its own.
        size: (B, T, L) float32, of each patch; 0 where there is none.
    """

    keep: Tensor
    size: Tensor

    @classmethod
    def of(cls, kept: KeptPatches, weigh_lengths: bool) -> "KeptGrid":
        """The grid of the patches that stay."""
        size = kept.sizes(weigh_lengths)
        grid = size.new_zeros(kept.origins.shape).flatten(1).scatter(1, kept.keep, size)
        return cls(kept.keep, grid.view_as(kept.origins))

    @property
    def bias(self) -> Tensor:
        """(B, T, L), what is added to the scores of keys."""
        return self.size.log()

    @property
    def row_bias(self) -> Tensor:
        """(B, M), the same for the tokens of the row; -inf for padding."""
        return self.size.flatten(1).gather(1, self.keep).log()

    @property
    def frame(self) -> Tensor:
        """(B, M), the frame of each token."""
        return self.keep // self.size.shape[2]

    def spread(self, tokens_BMD: Tensor) -> Tensor:
        """The tokens in their places, (B, T, L, D), zeros elsewhere."""
        width = tokens_BMD.shape[-1]
        grid = tokens_BMD.new_zeros(len(tokens_BMD), self.size[0].numel(), width)
        index = self.keep.unsqueeze(-1).expand(-1, -1, width)
        return grid.scatter(1, index, tokens_BMD).unflatten(1, self.size.shape[1:])

    def collect(self, grid_BTLD: Tensor) -> Tensor:
        """The tokens (B, M, D) of these places."""
        return take(grid_BTLD.flatten(1, 2), self.keep)

    def mean_over_frames(self, frames_BTD: Tensor) -> Tensor:
        """The mean (B, 1, D) over the frames that have patches left."""
        weight = (self.size > 0).any(dim=2).to(frames_BTD.dtype)
        weight = weight / weight.sum(dim=1, keepdim=True)
        return torch.einsum("bt,btd->bd", weight, frames_BTD).unsqueeze(1)
