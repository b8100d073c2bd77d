"""The transformer that both of CLIP's towers are made of, under OpenAI's parameter names.

Shapes: B sequences, N tokens, D width, H heads, K = D / H head width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.parts.clip.sizes import Activation
from models.parts.packed import PackedLinear, can_pack

NORM_EPS = 1e-5


class QuickGELU(nn.Module):
    """OpenAI's approximation of GELU, x sigmoid(1.702 x)."""

    FACTOR = 1.702

    def forward(self, values: Tensor) -> Tensor:
        """Elementwise."""
        return values * torch.sigmoid(self.FACTOR * values)


def activation_layer(name: Activation) -> nn.Module:
    """A fresh layer of the activation with this name."""
    return QuickGELU() if name == "quick_gelu" else nn.GELU()


class ClipAttention(nn.Module):
    """Multi-head self-attention; queries, keys and values are the thirds of `in_proj_weight`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens_BND: Tensor, causal: bool = False) -> Tensor:
        """Every token attends to all tokens of its sequence; `causal`: to none that follows it."""
        query, key, value = self._project(tokens_BND)
        context = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return self.out_proj(context.transpose(1, 2).flatten(2))

    def received_from_first(self, tokens_BND: Tensor) -> Tensor:
        """The attention that the first token pays to each token, float32 (B, N), averaged over heads."""
        query, key, _ = self._project(tokens_BND)
        query, key = query[:, :, :1].float(), key.float()
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
        return scores.softmax(dim=-1).mean(dim=1).squeeze(1)

    def _project(self, tokens_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, H, N, K)."""
        projected = F.linear(tokens_BND, self.in_proj_weight, self.in_proj_bias)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=-1)
        )
        return query, key, value


class ClipMlp(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = activation_layer(activation)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.c_proj(self.gelu(self.c_fc(tokens)))

    @torch.no_grad()
    def folded(self, dtype: torch.dtype) -> nn.Module:
        """Pack for inference on a CPU, with the activation fused into the first layer; returns itself on other devices.

        x sigmoid(1.702 x) is swish(1.702 x) / 1.702, so QuickGELU's factor goes into the weights.
        """
        if not can_pack(self.c_fc.weight):
            return self

        is_quick = isinstance(self.gelu, QuickGELU)
        factor = QuickGELU.FACTOR if is_quick else 1.0
        weights = [self.c_fc.weight * factor, self.c_fc.bias * factor, self.c_proj.weight / factor, self.c_proj.bias]
        first, first_bias, second, second_bias = (weight.to(dtype) for weight in weights)
        return nn.Sequential(
            PackedLinear(first, first_bias, "swish" if is_quick else "gelu"), PackedLinear(second, second_bias)
        )


class ClipBlock(nn.Module):
    """A pre-norm block: attention, then MLP, each with a residual connection."""

    def __init__(self, width: int, heads: int, activation: Activation) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = ClipAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = ClipMlp(width, activation)

    def forward(self, tokens_BND: Tensor, causal: bool = False) -> Tensor:
        """The next states of sequences (B, N, D)."""
        tokens = tokens_BND + self.attn(self.ln_1(tokens_BND), causal)
        return tokens + self.mlp(self.ln_2(tokens))


class ClipTransformer(nn.Module):
    """A stack of blocks; `recompute` keeps only their inputs for the backward pass."""

    def __init__(self, width: int, depth: int, heads: int, activation: Activation) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ClipBlock(width, heads, activation) for _ in range(depth))
        self.recompute = False
        for block in self.resblocks:
            assert isinstance(block, ClipBlock)
            attention = block.attn
            initialise((attention.in_proj_weight, attention.in_proj_bias), attention.out_proj, block.mlp, depth)

    def forward(self, tokens_BND: Tensor, causal: bool = False) -> Tensor:
        """Through all blocks."""
        for block in self.resblocks:
            if self.recompute and self.training:
                tokens_BND = checkpoint(block, tokens_BND, causal, use_reentrant=False)
            else:
                tokens_BND = block(tokens_BND, causal)
        return tokens_BND


@torch.no_grad()
def initialise(in_projection: tuple[Tensor, Tensor], out_projection: nn.Linear, mlp: ClipMlp, depth: int) -> None:
    """Draw a fresh block at OpenAI's scales: what is added to the residual is smaller, the deeper the stack.

    Args:
        in_projection: weight (3 D, D) and bias of queries, keys and values.
    """
    weight, bias = in_projection
    width = weight.shape[1]
    residual_std = (2 * depth * width) ** -0.5
    nn.init.normal_(weight, std=width**-0.5)
    nn.init.normal_(out_projection.weight, std=residual_std)
    nn.init.normal_(mlp.c_fc.weight, std=(2 * width) ** -0.5)
    nn.init.normal_(mlp.c_proj.weight, std=residual_std)
    for zeroed in (bias, out_projection.bias, mlp.c_fc.bias, mlp.c_proj.bias):
        nn.init.zeros_(zeroed)
