"""CLIP's blocks taken apart: other queries than the tokens that are seen, masks, and keys and values to keep.

Shapes: B sequences, Q queries, N tokens seen, D width, H heads, K head width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.parts.bert_attention import KeysValues
from models.parts.clip.blocks import ClipBlock, ClipTransformer


def joined(first: KeysValues, second: KeysValues) -> KeysValues:
    """The tokens of the first, then those of the second."""
    return KeysValues(*(torch.cat(pair, dim=2) for pair in zip(first, second, strict=True)))


def blocks_of(transformer: ClipTransformer) -> list[ClipBlock]:
    """The blocks, by their own type."""
    return [block for block in transformer.resblocks if isinstance(block, ClipBlock)]


def seen_of(block: ClipBlock, tokens_BND: Tensor) -> KeysValues:
    """What queries of this block see of the tokens."""
    width = tokens_BND.shape[-1]
    attention = block.attn
    projected = F.linear(block.ln_1(tokens_BND), attention.in_proj_weight[width:], attention.in_proj_bias[width:])
    keys, values = projected.chunk(2, dim=-1)
    return KeysValues(heads_of(keys, attention.heads), heads_of(values, attention.heads))


def read(block: ClipBlock, tokens_BQD: Tensor, seen: KeysValues, mask: Tensor | None = None) -> Tensor:
    """The tokens after the block, having seen what is `seen`: themselves only if that includes them.

    `mask`, bool and spread to (B, H, Q, N), is True where a token may be seen.
    """
    width = tokens_BQD.shape[-1]
    attention = block.attn
    queries = F.linear(block.ln_1(tokens_BQD), attention.in_proj_weight[:width], attention.in_proj_bias[:width])
    return _finish(block, tokens_BQD, heads_of(queries, attention.heads), seen, mask)


def attend(block: ClipBlock, tokens_BND: Tensor, mask: Tensor | None = None) -> Tensor:
    """The tokens after the block, having seen each other where the mask allows it."""
    attention = block.attn
    projected = F.linear(block.ln_1(tokens_BND), attention.in_proj_weight, attention.in_proj_bias)
    queries, keys, values = (heads_of(part, attention.heads) for part in projected.chunk(3, dim=-1))
    return _finish(block, tokens_BND, queries, KeysValues(keys, values), mask)


def heads_of(projected: Tensor, heads: int) -> Tensor:
    """Projected tokens (B, N, D) as (B, H, N, K)."""
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2)


def _finish(block: ClipBlock, tokens: Tensor, queries_BHQK: Tensor, seen: KeysValues, mask: Tensor | None) -> Tensor:
    tokens = tokens + block.attn.out_proj(attention(queries_BHQK, seen, mask).transpose(1, 2).flatten(2))
    return tokens + block.mlp(block.ln_2(tokens))


def attention(queries_BHQK: Tensor, seen: KeysValues, mask: Tensor | None) -> Tensor:
    """Context (B, H, Q, K); the mask is bool, True where a token may be seen, or is added to scores."""
    if mask is None or not queries_BHQK.is_cuda:
        return F.scaled_dot_product_attention(queries_BHQK, seen.keys, seen.values, attn_mask=mask)
    # cuDNN's kernel, first choice on Hopper, is wrong for some lengths when there is a mask.
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        return F.scaled_dot_product_attention(queries_BHQK, seen.keys, seen.values, attn_mask=mask)


class SequenceEncoder(nn.Module):
    """Some blocks, a norm and a projection, of which only the first token is read (names of CLIP's image tower)."""

    def __init__(self, width: int, heads: int, depth: int, embed_dim: int) -> None:
        super().__init__()
        self.transformer = ClipTransformer(width, depth, heads, "quick_gelu")
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, embed_dim) * width**-0.5)

    def read_first(self, tokens_BND: Tensor) -> Tensor:
        """The first token (B, E) after the blocks."""
        *blocks, last = blocks_of(self.transformer)
        for block in blocks:
            tokens_BND = attend(block, tokens_BND)
        first = read(last, tokens_BND[:, :1], seen_of(last, tokens_BND))
        return self.project(first)[:, 0]

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens (..., D) in the shared space (..., E)."""
        return self.ln_post(tokens) @ self.proj
