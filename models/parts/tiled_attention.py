"""Attention of many tokens on a CPU, one head and one tile of queries at a time, with oneDNN's matrix products.

Over 3600 tokens it is 3 times as fast as torch's fused kernel in bfloat16, and 1.6 times in float32. Scores of a tile
stay in the cache, and bfloat16 does not round them.
Shapes: B batch, N tokens, G groups that do not see each other, H heads, K head width, Q queries of a tile.
"""

import math

import torch
from torch import Tensor

from models.parts.merging import take
from models.parts.packed import can_pack, product, sigmoid_product

QUERIES_AT_ONCE = 512
SAMPLED = 16
"""So many queries, the longest, are looked at to guess how high scores get."""
EXACT_BELOW = {torch.float32: -17.0, torch.bfloat16: -8.0}
"""Where a sigmoid equals the exponential function up to rounding: its relative error is e^x."""
LEAST_LOG_TOTAL = -60.0
"""A query whose weights add up to less than e to this has lost some to underflow, which begins at e^-87."""
HEADROOM = 6.0
"""How much higher than those of the sample the scores of other queries may get."""


def suits_tiles(query: Tensor) -> bool:
    """Whether these queries should use tiles; compiled graphs keep torch's kernel."""
    return not torch.is_grad_enabled() and not torch.compiler.is_compiling() and can_pack(query)


def attend_in_tiles(query_BNGHK: Tensor, key_BNGHK: Tensor, value_BNGHK: Tensor, key_bias_BGN: Tensor | None) -> Tensor:
    """Context (B, N, G, H, K) of attention within groups; scores have `key_bias_BGN` added to each key."""
    context = torch.empty_like(query_BNGHK, memory_format=torch.contiguous_format)
    for row in range(len(query_BNGHK)):
        for group in range(query_BNGHK.shape[2]):
            place = (row, slice(None), group)
            query, key = (part[place].transpose(0, 1).contiguous() for part in (query_BNGHK, key_BNGHK))
            bias = None if key_bias_BGN is None else key_bias_BGN[row, group].float()
            _attend_in_one_group(query, *_seen(key, value_BNGHK[place], bias), context[place])
    return context


def _seen(key_HNK: Tensor, value_NHK: Tensor, bias_N: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The keys, values and biases of tokens that may be seen: a bias of -inf hides padding."""
    if bias_N is None:
        return key_HNK, value_NHK, None
    seen = (bias_N > -math.inf).nonzero().squeeze(1)
    if len(seen) == len(bias_N):
        return key_HNK, value_NHK, bias_N
    return key_HNK.index_select(1, seen), value_NHK.index_select(0, seen), bias_N.index_select(0, seen)


def _attend_in_one_group(
    query_HNK: Tensor, key_HNK: Tensor, value_NHK: Tensor, bias_N: Tensor | None, context_NHK: Tensor
) -> None:
    """Write the context of one group: by exponentials, and by a softmax for the heads that these do not serve."""
    served = [False] * len(query_HNK)
    if _scales_exactly(key_HNK):
        served = _attend_by_exponentials(query_HNK, _keys(key_HNK), value_NHK, bias_N, context_NHK)
    for head, is_done in enumerate(served):
        if not is_done:
            context_NHK[:, head] = _attend_by_softmax(query_HNK[head], key_HNK[head], value_NHK[:, head], bias_N)


def _attend_by_exponentials(
    query_HNK: Tensor, keys_HNK: Tensor, value_NHK: Tensor, bias_N: Tensor | None, context_NHK: Tensor
) -> list[bool]:
    """Write the context of one group, and return for each head whether it is right.

    A softmax is the same whatever number is taken off all scores of a query. Instead of each query's own highest score,
    all queries of a head take off one offset, guessed from a few of them. Then oneDNN computes weights in the same pass
    as the scores, with a sigmoid, which equals the exponential function for very negative numbers.

    What the weights of a query add up to, which ones beside the values give, shows afterwards whether the guess was
    right. It was not where scores got too high for the sigmoid, or so low that weights were lost to underflow.
    """
    width, exact_below = query_HNK.shape[-1], EXACT_BELOW[query_HNK.dtype]
    weighted, highest_bias = _weighted_values(value_NHK, bias_N)
    offsets = _highest_scores(query_HNK, keys_HNK) + highest_bias - exact_below + HEADROOM

    sums = query_HNK.new_empty(*query_HNK.shape[:2], width + 1)
    for head, (query_NK, keys_NK, offset) in enumerate(zip(query_HNK, keys_HNK, offsets, strict=True)):
        shift = (-offset).to(keys_NK.dtype).expand(len(keys_NK)).contiguous()
        for tile in _tiles(len(query_NK)):
            weights = sigmoid_product(query_NK[tile], keys_NK, shift)
            sums[head, tile] = product(weights, weighted[head].t())
    torch.div(sums[..., :width], sums[..., width:], out=context_NHK.transpose(0, 1))

    least, most = sums[..., width].float().aminmax(dim=1)
    return ((least > math.exp(LEAST_LOG_TOTAL)) & (most < math.exp(exact_below))).tolist()


def _weighted_values(value_NHK: Tensor, bias_N: Tensor | None) -> tuple[Tensor, float]:
    """Values and ones of each head, (H, N, K + 1), times what biases multiply weights by; and the highest bias.

    Biases count from the lowest, so that they make no weight smaller.
    """
    num_keys, heads, width = value_NHK.shape
    weighted = value_NHK.new_ones(heads, num_keys, width + 1)
    weighted[..., :width] = value_NHK.transpose(0, 1)
    if bias_N is None:
        return weighted, 0.0
    bias_N = bias_N - bias_N.min()
    return weighted.mul_(bias_N.exp().unsqueeze(1)), float(bias_N.max())


def _highest_scores(query_HNK: Tensor, keys_HNK: Tensor) -> Tensor:
    """What scores of each head, summed up as exponentials, get to at most in its longest queries, (H,) float32."""
    longest = torch.linalg.vector_norm(query_HNK, dim=-1).topk(min(SAMPLED, query_HNK.shape[1]), dim=-1).indices
    scores = take(query_HNK, longest) @ keys_HNK.transpose(1, 2)
    return scores.flatten(1).amax(dim=1).float() + math.log(keys_HNK.shape[1])


def _attend_by_softmax(query_NK: Tensor, key_NK: Tensor, value_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    """Context (N, K) of one head, by a softmax of its scores, which are float32: rounded ones would cost precision."""
    keys, values = _keys(key_NK.float()), value_NK.t().contiguous()
    context = torch.empty_like(query_NK)
    for tile in _tiles(len(query_NK)):
        scores = product(query_NK[tile].float(), keys, bias_N)
        probabilities = torch.softmax(scores, dim=-1, out=scores)
        context[tile] = product(probabilities.to(values.dtype), values)
    return context


def attend_in_tiles_with_sharpness(
    query_BNHK: Tensor, key_BNHK: Tensor, value_BNHK: Tensor, size_BN: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See `models.parts.sharpness.attend_with_sharpness`: context (B, N, H, K) and sharpness (B, N)."""
    context = torch.empty_like(query_BNHK, memory_format=torch.contiguous_format)
    sharp = query_BNHK.new_empty(query_BNHK.shape[:2], dtype=torch.float32)
    heads = range(query_BNHK.shape[2])
    for row in range(len(query_BNHK)):
        # The keys and values of all heads, once per row. Values are multiplied by size; see `attend_with_sharpness`.
        size = None if size_BN is None else size_BN[row].float().contiguous()
        keys = [_keys(key_BNHK[row, :, head].float()) for head in heads]
        sized = value_BNHK[row] if size is None else (value_BNHK[row] * size[:, None, None]).to(value_BNHK.dtype)
        values = [sized[:, head].t().contiguous() for head in heads]

        # Sharpness needs the mean attention over heads, so the heads of a tile add up in `total`.
        for tile in _tiles(query_BNHK.shape[1]):
            total: Tensor | None = None
            for head in heads:
                scores = product(query_BNHK[row, tile, head].float().contiguous(), keys[head])
                probabilities = torch.softmax(scores, dim=-1, out=scores)
                attended = product(probabilities.to(sized.dtype), values[head])
                context[row, tile, head] = attended if size is None else attended / (probabilities @ size)[:, None]
                total = probabilities if total is None else total.add_(probabilities)
            assert total is not None
            sharp[row, tile] = -torch.special.entr(total.div_(len(heads))).sum(dim=-1)
    return context, sharp


def _scales_exactly(key: Tensor) -> bool:
    """Whether `_keys` rounds nothing that matters: bfloat16 has to be multiplied with a power of two."""
    return key.dtype == torch.float32 or math.frexp(key.shape[-1] ** -0.5)[0] == 0.5


def _keys(key: Tensor) -> Tensor:
    return key * key.shape[-1] ** -0.5


def _tiles(num_tokens: int) -> list[slice]:
    return [slice(first, first + QUERIES_AT_ONCE) for first in range(0, num_tokens, QUERIES_AT_ONCE)]
