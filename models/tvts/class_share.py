"""What the class token of a clip sees in some of its tokens, which may come in parts.

Shapes: B batch, N tokens, D width, H heads, K = D / H head width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.parts.precision import at_least_float32, without_autocast


class ClassShare(NamedTuple):
    """What the class token sees in some of the tokens.

    Attributes:
        context: (B, H, K), float32 or better, mean of their values by its attention to them alone.
        log_total: (B, H), alike, log of the sum of their exponentiated scores.
    """

    context: Tensor
    log_total: Tensor


class Projection(NamedTuple):
    """A linear layer of all heads: weight (D, D) and bias (D,)."""

    weight: Tensor
    bias: Tensor


def class_share(query_B1HK: Tensor, key_BNHK: Tensor, value_BNHK: Tensor, bias: Tensor | None) -> ClassShare:
    """What the class token's query sees in some keys, with `bias` (B, ...) of N numbers added to their scores."""
    scores = torch.einsum("bhk,bnhk->bhn", _scaled(query_B1HK), at_least_float32(key_BNHK))
    if bias is not None:
        scores = scores + bias.flatten(1).unsqueeze(1)
    context = torch.einsum("bhn,bnhk->bhk", scores.softmax(dim=-1), at_least_float32(value_BNHK))
    return ClassShare(context, scores.logsumexp(dim=-1))


def class_share_of_tokens(
    query_B1HK: Tensor, tokens_BND: Tensor, keys: Projection, values: Projection, bias: Tensor | None
) -> ClassShare:
    """`class_share` of tokens whose keys and values nobody else needs; equal to it, without projecting them.

    A score q (W x + b) is (q W) x + q b, and the mean of values V x + c is V applied to the mean of tokens, plus c: one
    query and one mean a head are projected in place of N tokens. In float32 or better, whatever autocast says.
    """
    with without_autocast(tokens_BND.device):
        query_BHK, tokens = _scaled(query_B1HK), at_least_float32(tokens_BND)
        heads = query_BHK.shape[1]
        key_HKD, key_bias_HK, value_HKD, value_bias_HK = (
            at_least_float32(part).unflatten(0, (heads, -1)) for part in (*keys, *values)
        )

        asked_BHD = torch.einsum("bhk,hkd->bhd", query_BHK, key_HKD)
        scores = asked_BHD @ tokens.transpose(1, 2) + (query_BHK * key_bias_HK).sum(dim=-1, keepdim=True)
        if bias is not None:
            scores = scores + bias.flatten(1).unsqueeze(1)

        mean_BHD = scores.softmax(dim=-1) @ tokens
        context = torch.einsum("bhd,hkd->bhk", mean_BHD, value_HKD) + value_bias_HK
        return ClassShare(context, scores.logsumexp(dim=-1))


def joined_shares(shares: list[ClassShare]) -> Tensor:
    """Context (B, H, K) of the class token in all parts: each weighs as much as its scores add up to."""
    weights = torch.stack([share.log_total for share in shares]).softmax(dim=0).unsqueeze(-1)
    return (weights * torch.stack([share.context for share in shares])).sum(dim=0)


def _scaled(query_B1HK: Tensor) -> Tensor:
    """Queries (B, H, K), divided by the root of their width."""
    return at_least_float32(query_B1HK[:, 0]) * query_B1HK.shape[-1] ** -0.5
