"""Multi-head self-attention that hands out, when asked, the keys or the attention each token receives.

Shapes: M independent sequences, N tokens, D width, H heads, K = D / H head width.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


class Attended(NamedTuple):
    """Output (M, N, D); where asked for, keys averaged over heads (M, N, K) and attention received (M, N), float32."""

    output: Tensor
    key: Tensor | None
    importance: Tensor | None


class Attention(nn.Module):
    """Self-attention with one matrix for queries, keys and values, as in ViT (names `qkv` and `proj`)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        tokens_MND: Tensor,
        key_bias_MN: Tensor | None = None,
        needs: Literal["nothing", "key", "probabilities"] = "nothing",
    ) -> Attended:
        """Attend within each sequence; `key_bias_MN` is added to the scores of each key (log size)."""
        query, key, value = (
            self.qkv(tokens_MND).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        )  # each M H N K
        bias = None if key_bias_MN is None else key_bias_MN.detach().to(query.dtype)[:, None, None, :]
        importance = None
        if needs == "probabilities":
            context, importance = _attend_with_probabilities(query, key, value, bias)
        else:
            context = _attend(query, key, value, bias)
        output = self.proj(context.transpose(1, 2).flatten(2))
        mean_key = None if needs == "nothing" else key.detach().mean(dim=1)
        return Attended(output, mean_key, importance)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None or not query.is_cuda:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    # cuDNN's kernel, first choice on Hopper, returns NaN gradients for some lengths when there is a bias.
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def _attend_with_probabilities(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention with its probabilities written out, and how much of it each token receives from the others (M, N).

    Equation 1 of TESTA: the mean over heads, summed over queries, without what a token gives itself.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    probabilities = scores.softmax(dim=-1, dtype=torch.float32)
    given = probabilities.detach().mean(dim=1)
    importance = given.sum(dim=-2) - given.diagonal(dim1=-2, dim2=-1)
    return probabilities.to(value.dtype) @ value, importance
