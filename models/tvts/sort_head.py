"""The sorting head: which of a clip's transcripts comes first, second and so on, judged by the video.

Zeng et al., 2023. Parameter names are the published ones. Shapes: B clips, M video tokens, K transcripts, E width.
"""

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-6


class SortAttention(nn.Module):
    """Plain self-attention, named `qkv` and `proj`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Every token attends to all."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(tokens_BND).chunk(3, dim=-1)
        )
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class SortBlock(nn.Module):
    """A pre-norm block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = SortAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """The next states."""
        tokens = tokens_BND + self.attn(self.norm1(tokens_BND))
        return tokens + self.mlp(self.norm2(tokens))


class SortHead(nn.Module):
    """Classify the place in time of each transcript of a clip.

    Transcripts have no position of their own, so they may come in any order: their logits follow them.
    """

    def __init__(self, width: int, heads: int, depth: int = 2, num_classes: int = 4) -> None:
        super().__init__()
        self.type_embed = nn.Parameter(torch.zeros(1, 2, width))
        self.blocks = nn.ModuleList(SortBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Linear(width, num_classes)

    def forward(self, video_BME: Tensor, transcripts_BKE: Tensor) -> Tensor:
        """Logits (B, K, classes) of the place of each transcript."""
        video = video_BME + self.type_embed[:, :1]
        transcripts = transcripts_BKE + self.type_embed[:, 1:]
        tokens = torch.cat([video, transcripts], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, video.shape[1] :]))
