"""UMT's transformer block over the tokens of a whole video, without a class token.

Shapes: B batch, N tokens, D width, H heads, K head width.
"""

from typing import NamedTuple

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.aggregation import AggregationStep, TokenAggregator, follow, merge
from models.parts.attention import Attention
from models.parts.chunks import plus_update
from models.parts.packed import can_pack, packed, packed_parts

NORM_EPS = 1e-6


class TokenState(NamedTuple):
    """What goes from block to block.

    Attributes:
        tokens: (B, N, D).
        size: (B, N) float32, how much each token holds of the video; None before the first reduction, when all are 1.
        origins: (B, T, L) the token that holds each original cell, -1: dropped; None unless asked for.
    """

    tokens: Tensor
    size: Tensor | None
    origins: Tensor | None


class BiasedAttention(Attention):
    """Self-attention whose queries and values have a bias and whose keys have none."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))

    def _project(self, tokens_BNGD: Tensor) -> tuple[Tensor, ...]:
        if not isinstance(self.qkv, nn.Linear):  # packed for inference
            return super()._project(tokens_BNGD)
        return F.linear(tokens_BNGD, self.qkv.weight, self._bias()).chunk(3, dim=-1)

    def _bias(self) -> Tensor:
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    @torch.no_grad()
    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """Pack the weights for a CPU, where it can be done."""
        if not isinstance(self.qkv, nn.Linear) or not can_pack(self.qkv.weight):
            return
        assert isinstance(self.proj, nn.Linear)
        with_bias = nn.utils.skip_init(nn.Linear, self.width, 3 * self.width)
        with_bias.weight, with_bias.bias = self.qkv.weight, nn.Parameter(self._bias())
        self.qkv, self.proj = packed_parts(with_bias, 3, dtype), packed(self.proj, dtype)


class JointSpaceTimeBlock(nn.Module):
    """Attention, reduction of tokens, MLP; each of the first and last with a norm before it and a residual."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, drop_path: float, merge_tokens: TokenAggregator
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = BiasedAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp: nn.Module = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.merge_tokens = merge_tokens

    def forward(self, state: TokenState, steps: list[AggregationStep] | None = None) -> TokenState:
        """The next state, of fewer tokens where the block reduces; `steps` is given what it did."""
        tokens, size, origins = state

        # A token that holds more of the video counts for more. Before any reduction there is no bias at all, so that
        # the fused kernel without one is used.
        num_tokens = tokens.shape[1]
        log_size = None if size is None else size.log().unsqueeze(1)
        needs = self.merge_tokens.needs if self.merge_tokens.num_leaving(num_tokens) else "nothing"
        attended = self.attn(self.norm1(tokens).unsqueeze(2), log_size, needs)
        tokens = plus_update(tokens, self.drop_path(self.attn.proj(attended.context).squeeze(2)))

        attended = attended.of_tokens(0)
        plan = self.merge_tokens.plan(attended, num_tokens, tokens.detach())
        if plan is not None:
            compared = tokens if attended.key is None else attended.key
            if size is None:
                size = tokens.new_ones(tokens.shape[:2], dtype=torch.float32)
            tokens, size = merge(tokens, size, plan)
            origins = None if origins is None else follow(origins, plan, num_tokens, 1)
            if steps is not None:
                assert origins is not None
                steps.append(AggregationStep("joint", compared.detach(), plan, origins))

        tokens = plus_update(tokens, self.drop_path(self.mlp(self.norm2(tokens))))
        return TokenState(tokens, size, origins)

    @torch.no_grad()
    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """Pack the weights for a CPU, where it can be done."""
        self.attn.fold_for_inference(dtype)
        mlp = self.mlp
        if isinstance(mlp, Mlp) and can_pack(mlp.fc1.weight):
            assert isinstance(mlp.fc1, nn.Linear) and isinstance(mlp.fc2, nn.Linear)
            self.mlp = nn.Sequential(packed(mlp.fc1, dtype, "gelu"), packed(mlp.fc2, dtype))
