"""Batches of videos that are left with different numbers of tokens: ragged rows.

A row holds a video's own tokens first, then padding up to the longest row of the batch. Three rules let everything that
handles tokens handle such rows:

- Between blocks, padding has size 0. Attention adds log(size) to the scores of keys, which is -inf there, so nobody
  attends to padding.
- After the last norm, padding is exactly zero. Whatever stores or sends tokens needs no mask beside them: `own_tokens`
  finds it again.
- What padding computes is never read: a mean is over a video's own tokens (`mean_token`), and texts attend with a mask.

Shapes: B videos, N tokens of the longest row, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

LENGTHS_WHEN_COMPILED = 8
"""A compiled encoder has a graph for each length of a batch's rows; lengths are rounded up to so many."""


def row_length(longest: int, num_patches: int, few_lengths: bool) -> int:
    """How long the rows of a batch are: as their longest, or rounded up to one of a few lengths."""
    if not few_lengths:
        return longest
    step = -(-num_patches // LENGTHS_WHEN_COMPILED)
    return min(num_patches, -(-longest // step) * step)


def own_tokens(tokens_BND: Tensor) -> Tensor:
    """Which tokens are a video's own, bool (B, N), in the output of an encoder: padding alone is exactly zero."""
    return (tokens_BND != 0).any(dim=-1)


def without_padding(tokens_BND: Tensor, mask_BN: Tensor | None) -> Tensor:
    """The tokens, with padding set to zero; all of them if there is no mask."""
    return tokens_BND if mask_BN is None else tokens_BND.masked_fill(~mask_BN.unsqueeze(-1), 0.0)


def mean_token(tokens_BND: Tensor, mask_BN: Tensor | None, size_BN: Tensor | None = None) -> Tensor:
    """The mean (B, D) of each video's own tokens, weighted by their sizes if these are given."""
    if size_BN is None and mask_BN is None:
        return tokens_BND.mean(dim=1)
    weight = size_BN if size_BN is not None else mask_BN
    assert weight is not None
    weight = weight.float()
    if mask_BN is not None:
        weight = weight * mask_BN
    weight = weight / weight.sum(dim=1, keepdim=True)
    return (tokens_BND * weight.to(tokens_BND.dtype).unsqueeze(-1)).sum(dim=1)


def padded_to(rows_BND: Tensor, longest: int) -> Tensor:
    """Rows (B, N, D) with zeros up to `longest` tokens."""
    return F.pad(rows_BND, (0, 0, 0, longest - rows_BND.shape[1]))


def joined_rows(parts: Sequence[Tensor]) -> Tensor:
    """Batches of tokens (B, N, D), each with rows of its own length, as one batch; shorter rows end in zeros."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([padded_to(part, longest) for part in parts])
