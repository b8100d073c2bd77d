"""Sharpness of attention, and the saliency that follows from it: which tokens are background (vid-TLDR, CVPR 2024).

A query that looks at few keys attends sharply; one that looks everywhere is background. The whole attention map
never exists: only a tile of queries at a time.
Shapes: B batch, N tokens, H heads, K head width.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from models.parts.precision import at_least_float32, at_least_float32_type
from models.parts.tiled_attention import attend_in_tiles_with_sharpness, suits_tiles

TILE_BYTES = {"cpu": 2**24, "other": 2**26}
"""Scores that exist at a time: on a CPU about what a cache holds."""
SMALLEST_SPREAD = 1e-6
"""Relative to the values: a smaller one between the sharpest query and the mean is rounding."""


@torch.no_grad()
def sharpness(query_BNHK: Tensor, key_BNHK: Tensor) -> Tensor:
    """Negative entropy (B, N) of each query's attention, averaged over heads first; 0 where it looks at one key."""
    queries, keys = _by_head(query_BNHK), key_BNHK.permute(0, 2, 3, 1).contiguous()
    result = query_BNHK.new_empty(query_BNHK.shape[:2], dtype=at_least_float32_type(query_BNHK))
    for rows, tile in _tiles(query_BNHK):
        result[rows, tile] = negative_entropy(_probabilities(queries[rows, :, tile], keys[rows]))
    return result


@torch.no_grad()
def attend_with_sharpness(
    query_BNHK: Tensor, key_BNHK: Tensor, value_BNHK: Tensor, size_BN: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Context (B, N, H, K) and sharpness (B, N) in one pass, without gradient.

    With sizes, the context uses scores with log(size) added to each key, but the sharpness, as in the paper, uses the
    plain scores. One softmax serves both: adding log(size) multiplies a probability by size before normalising. So the
    values are multiplied by size, and a column of sizes beside them sums up to the normaliser.
    """
    if suits_tiles(query_BNHK):
        return attend_in_tiles_with_sharpness(query_BNHK, key_BNHK, value_BNHK, size_BN)

    queries, keys, values = _by_head(query_BNHK), key_BNHK.permute(0, 2, 3, 1).contiguous(), _by_head(value_BNHK)
    if size_BN is not None:
        size = size_BN[:, None, :, None].to(values.dtype).expand(-1, values.shape[1], -1, -1)
        values = torch.cat([values * size, size], dim=-1)
    values = values.contiguous()

    context = torch.empty_like(query_BNHK, memory_format=torch.contiguous_format)
    sharp = query_BNHK.new_empty(query_BNHK.shape[:2], dtype=at_least_float32_type(query_BNHK))
    for rows, tile in _tiles(query_BNHK):
        probabilities = _probabilities(queries[rows, :, tile], keys[rows])
        sharp[rows, tile] = negative_entropy(probabilities)
        attended = probabilities.to(values.dtype) @ values[rows]
        if size_BN is not None:
            attended = attended[..., :-1] / attended[..., -1:]
        context[rows, tile] = attended.transpose(1, 2)
    return context, sharp


@torch.no_grad()
def saliency(sharpness_BN: Tensor) -> Tensor:
    """Weights (B, N) in [0, 1]: 0 for tokens less sharp than the mean of their sample, 1 for the sharpest.

    Departs from the reference, which has NaN here: where all tokens are equally sharp, none is background and all
    weights are 1.
    """
    # Scale the sharpness so that the mean becomes 0 and the maximum 1. Where all are alike, there is no scale.
    mean = sharpness_BN.mean(dim=-1, keepdim=True)
    spread = sharpness_BN.amax(dim=-1, keepdim=True) - mean
    alike = spread <= SMALLEST_SPREAD * sharpness_BN.abs().amax(dim=-1, keepdim=True)
    weight = (sharpness_BN - mean) / spread.masked_fill(alike, 1.0)
    return weight.clamp(0.0, 1.0).masked_fill(alike, 1.0)


def _by_head(tokens_BNHK: Tensor) -> Tensor:
    return tokens_BNHK.transpose(1, 2)


def _tiles(query_BNHK: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield slices of the batch and of queries whose scores fit in a tile; several rows only if they fit whole."""
    batch, num_tokens, heads, _ = query_BNHK.shape
    most = TILE_BYTES.get(query_BNHK.device.type, TILE_BYTES["other"])
    bytes_per_query = heads * num_tokens * 4

    num_rows = min(batch, max(1, most // (bytes_per_query * num_tokens)))
    num_queries = max(1, most // (num_rows * bytes_per_query))

    for row in range(0, batch, num_rows):
        for first in range(0, num_tokens, num_queries):
            yield slice(row, row + num_rows), slice(first, first + num_queries)


def _probabilities(query_BHQK: Tensor, key_BHKN: Tensor) -> Tensor:
    """Attention (B, H, Q, N), at least float32."""
    scores = (query_BHQK * query_BHQK.shape[-1] ** -0.5) @ key_BHKN
    scores = at_least_float32(scores)
    return torch.softmax(scores, dim=-1, out=scores)


def negative_entropy(probabilities_BHQN: Tensor) -> Tensor:
    """Sharpness (B, Q) of attention (B, H, Q, N): the sum of a ln a over the keys, where a is the mean over heads.

    A key without attention adds nothing.
    """
    return -torch.special.entr(probabilities_BHQN.mean(dim=1)).sum(dim=-1)
