"""Attention with dropped probabilities on a CPU, where torch's own keeps three floats a score for backward.

Shapes: B batch, H heads, Q queries, N keys, K head width.
"""

from typing import Any

import torch
from torch import Tensor

from models.parts.precision import without_autocast


class DroppedAttention(torch.autograd.Function):
    """softmax(QK' / sqrt(K))V with probabilities zeroed at the rate `dropout`, the others divided by 1 - `dropout`.

    Equal to `scaled_dot_product_attention` given the same draws. It keeps one byte a score, to know what was dropped,
    and computes the scores again in backward, as fused kernels do. At least in float32, as torch's own.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
        """Attended values (B, H, Q, K); `mask` is bool, True where a key may be seen, and spreads to (B, H, Q, N)."""
        with without_autocast(query.device):
            scores = _scores(query, keys, mask)
            normaliser = scores.logsumexp(dim=-1, keepdim=True)
            kept = torch.empty_like(scores, dtype=torch.bool).bernoulli_(1 - dropout)
            probabilities = scores.sub_(normaliser).exp_().mul_(kept)
            attended = (probabilities @ values.to(scores.dtype)).div_(1 - dropout).to(values.dtype)
        ctx.dropout = dropout
        ctx.save_for_backward(query, keys, values, mask, kept, normaliser, attended)
        return attended

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, keys and values."""
        query, keys, values, mask, kept, normaliser, attended = ctx.saved_tensors
        with without_autocast(query.device):
            probabilities = _scores(query, keys, mask).sub_(normaliser).exp_()
            gradient = gradients[0].to(probabilities.dtype)

            # The gradient of a softmax subtracts its mean under the probabilities, which equals this product.
            mean = (gradient * attended).sum(dim=-1, keepdim=True)
            gradient = gradient / (1 - ctx.dropout)
            of_scores = (gradient @ values.to(gradient.dtype).transpose(-1, -2)).mul_(kept).sub_(mean)
            of_scores.mul_(probabilities).mul_(query.shape[-1] ** -0.5)
            of_values = probabilities.mul_(kept).transpose(-1, -2) @ gradient
            of_query = of_scores @ keys.to(gradient.dtype)
            of_keys = of_scores.transpose(-1, -2) @ query.to(gradient.dtype)
        return of_query.to(query.dtype), of_keys.to(keys.dtype), of_values.to(values.dtype), None, None


def _scores(query: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
    dtype = torch.promote_types(query.dtype, torch.float32)
    scores = (query.to(dtype) * query.shape[-1] ** -0.5) @ keys.to(dtype).transpose(-1, -2)
    return scores if mask is None else scores.masked_fill_(~mask, -torch.inf)
