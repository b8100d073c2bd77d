"""Attention of many short sequences on a CPU, without gradient, in products larger than one head of a sequence has.

oneDNN multiplies all heads of a sequence at once, as a convolution with one group a head. Very short sequences are
multiplied in one batch. Over 197 keys that takes two thirds of the time of torch's fused kernel, over 13 half of it.
Shapes: B batch, N tokens, M keys, G groups that do not see each other, H heads, K head width, Q queries of a tile.
"""

import torch
from torch import Tensor

from models.parts.packed import can_pack
from models.parts.precision import at_least_float32

MOST_KEYS_IN_BATCH = 16
"""Up to so many keys one batch of all sequences is fastest."""
FEWEST_KEYS, MOST_KEYS = 128, 320
"""Between these, all heads at once are fastest; more keys suit `models.parts.tiled_attention`."""
SCORES_AT_ONCE = 2**20
"""So many scores stay in the cache until they have become weights and multiplied the values."""
KEYS_ALIGNED = 16
"""Softmax and products are faster over multiples of a vector's length."""

_OPERATIONS = ("_convolution_pointwise", "_convolution_transpose_pointwise")


def suits_short(query: Tensor, num_keys: int) -> bool:
    """Whether `attend_in_short` should serve these queries; compiled graphs keep torch's kernel."""
    without_graph = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    right_length = num_keys <= MOST_KEYS_IN_BATCH or FEWEST_KEYS <= num_keys <= MOST_KEYS
    has_products = all(hasattr(torch.ops.mkldnn, name) for name in _OPERATIONS)
    return right_length and without_graph and has_products and can_pack(query)


def attend_in_short(
    query_BNGHK: Tensor,
    key_parts: tuple[Tensor, ...],
    value_parts: tuple[Tensor, ...],
    key_bias_BGM: Tensor | None,
    out_BNGHK: Tensor,
) -> None:
    """Write the context of attention within groups into `out_BNGHK`.

    Keys and values come in parts (B, M of the part, G, H, K), such as class tokens and patches. `key_bias_BGM` is added
    to the scores of each key. Scores and their softmax are float32.
    """
    num_keys = sum(part.shape[1] for part in key_parts)
    attend = _attend_in_batch if num_keys <= MOST_KEYS_IN_BATCH else _attend_by_sequence
    for row in range(len(query_BNGHK)):
        keys, values = (tuple(part[row] for part in parts) for parts in (key_parts, value_parts))
        bias = None if key_bias_BGM is None else key_bias_BGM[row].float()
        attend(query_BNGHK[row], keys, values, bias, out_BNGHK[row])


def attend_from_one(query_BHK: Tensor, key_BMHK: Tensor, value_BMHK: Tensor, key_bias_BM: Tensor | None) -> Tensor:
    """Context (B, H, K) of one query per sequence, such as a class token's: it reads all keys once."""
    scaled = at_least_float32(query_BHK) * query_BHK.shape[-1] ** -0.5
    scores = (key_BMHK * scaled.unsqueeze(1)).sum(dim=-1)
    if key_bias_BM is not None:
        scores = scores + key_bias_BM.unsqueeze(-1)

    # With keys last, threads share the heads of a softmax; with keys in between they would not.
    weights = scores.transpose(1, 2).contiguous().softmax(dim=-1).to(value_BMHK.dtype)
    return torch.einsum("bhm,bmhk->bhk", weights, value_BMHK)


def _attend_in_batch(
    query_NGHK: Tensor,
    key_parts: tuple[Tensor, ...],
    value_parts: tuple[Tensor, ...],
    bias_GM: Tensor | None,
    out_NGHK: Tensor,
) -> None:
    """All heads of all groups in one batch of products."""
    groups, heads, width = query_NGHK.shape[1:]
    query, key, value = (
        part.flatten(1, 2).transpose(0, 1) for part in (query_NGHK, torch.cat(key_parts), torch.cat(value_parts))
    )

    # A softmax over the last of few keys would waste most of each vector, so keys come first.
    scores = torch.bmm(query.float(), key.float().transpose(1, 2)).permute(2, 0, 1).contiguous()
    scores.mul_(width**-0.5)
    if bias_GM is not None:
        scores.unflatten(1, (groups, heads)).add_(bias_GM.t()[:, :, None, None])
    weights = torch.softmax(scores, dim=0, out=scores).to(value.dtype)

    context = torch.bmm(weights.permute(1, 2, 0), value)
    out_NGHK.copy_(context.transpose(0, 1).unflatten(1, (groups, heads)))


def _attend_by_sequence(
    query_NGHK: Tensor,
    key_parts: tuple[Tensor, ...],
    value_parts: tuple[Tensor, ...],
    bias_GM: Tensor | None,
    out_NGHK: Tensor,
) -> None:
    """All heads of one group at once."""
    keys, values = _stacked(key_parts, torch.float32), _stacked(value_parts, query_NGHK.dtype)
    keys.mul_(query_NGHK.shape[-1] ** -0.5)
    groups, heads, padded = keys.shape[:3]

    # Keys that were added to fill up weigh nothing.
    num_keys = sum(len(part) for part in key_parts)
    bias = keys.new_full((groups, heads, padded), -torch.inf)
    bias[..., :num_keys] = 0 if bias_GM is None else bias_GM.unsqueeze(1)

    queries_at_once = max(1, SCORES_AT_ONCE // (heads * padded))
    for group in range(groups):
        tiles = zip(query_NGHK[:, group].split(queries_at_once), out_NGHK[:, group].split(queries_at_once), strict=True)
        for query, context in tiles:
            scores = _scores(query.float(), keys[group], bias[group])
            weights = torch.softmax(scores, dim=-1, out=scores)
            context.copy_(_weighted_sums(weights.to(values.dtype), values[group]))


def _stacked(parts: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    """Parts (M, G, H, K) one after the other as (G, H, M, K), with zeros up to a multiple of `KEYS_ALIGNED`."""
    num_keys, (groups, heads, width) = sum(len(part) for part in parts), parts[0].shape[1:]
    padded = num_keys + -num_keys % KEYS_ALIGNED
    stacked = parts[0].new_empty(groups, heads, padded, width, dtype=dtype)
    first = 0
    for part in parts:
        stacked[:, :, first : first + len(part)] = part.permute(1, 2, 0, 3)
        first += len(part)
    stacked[:, :, first:] = 0
    return stacked


def _scores(query_QHK: Tensor, keys_HMK: Tensor, bias_HM: Tensor) -> Tensor:
    """Products of queries and keys by head, (Q, H, M)."""
    heads = len(keys_HMK)
    scores = torch.ops.mkldnn._convolution_pointwise(
        _as_image(query_QHK), keys_HMK.flatten(0, 1)[:, :, None, None], bias_HM.flatten(),
        (0, 0), (1, 1), (1, 1), heads, "none", [], "",
    )  # fmt: skip
    return _from_image(scores, heads)


def _weighted_sums(weights_QHM: Tensor, values_HMK: Tensor) -> Tensor:
    """Sums of values by head, (Q, H, K)."""
    heads = len(values_HMK)
    sums = torch.ops.mkldnn._convolution_transpose_pointwise(
        _as_image(weights_QHM), values_HMK.flatten(0, 1)[:, :, None, None], None,
        (0, 0), (0, 0), (1, 1), (1, 1), heads, "none", [], "",
    )  # fmt: skip
    return _from_image(sums, heads)


def _as_image(rows_QHX: Tensor) -> Tensor:
    """Queries as the pixels of an image (1, H X, Q, 1), channels last; copies them unless they are contiguous."""
    return rows_QHX.flatten(1).contiguous()[None, :, None].permute(0, 3, 1, 2)


def _from_image(image: Tensor, heads: int) -> Tensor:
    return image[0, :, :, 0].t().unflatten(1, (heads, -1))
