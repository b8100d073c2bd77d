"""The two transformer blocks of the video encoder: divided space-time, and plain (joint or within a frame).

Shapes: B batch, T frames, L patches a frame, D width, N tokens without the class token.
A block takes and returns (class token, tokens, size, origins). `size` is how many original cells a token holds;
`origins` (B, T0, L0) is the flat index of the token that holds each original cell, or None when nobody asks.
"""

import torch
from einops import rearrange, repeat
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from models.aggregation import TokenAggregator, follow, merge
from models.attention import Attended, Attention

BlockState = tuple[Tensor, Tensor, Tensor, Tensor | None]
NORM_EPS = 1e-6


class DividedBlock(nn.Module):
    """Attention over time, merging of frames, attention within each frame, merging of patches, MLP.

    The class token takes part in the attention of every frame, as one copy a frame whose updates are averaged, and in
    the MLP; not in the attention over time, and it never merges. Parameter names are TimeSformer's.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        drop_path: float,
        merge_frames: TokenAggregator,
        merge_patches: TokenAggregator,
        proportional_attention: bool,
        temporal_scaling: int | None,
    ) -> None:
        super().__init__()
        self.temporal_norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.temporal_attn = Attention(width, heads)
        self.temporal_fc: nn.Module = nn.Linear(width, width)
        if temporal_scaling is not None:
            self.temporal_scaling = nn.Parameter(torch.zeros(1, temporal_scaling, 1))
        else:
            self.register_parameter("temporal_scaling", None)
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.merge_frames, self.merge_patches = merge_frames, merge_patches
        self.proportional_attention = proportional_attention

    def forward(self, cls_B1D: Tensor, tokens_BTLD: Tensor, size_BTL: Tensor, origins: Tensor | None) -> BlockState:
        """The next state; tokens (B, T, L, D) and size (B, T, L) have fewer frames and patches after merging."""
        tokens, size, origins = self._over_time(tokens_BTLD, size_BTL, origins)
        cls, tokens, size, origins = self._within_frames(cls_B1D, tokens, size, origins)
        together = torch.cat([cls, tokens.flatten(1, 2)], dim=1)
        together = together + self.drop_path(self.mlp(self.norm2(together)))
        return together[:, :1], together[:, 1:].unflatten(1, tokens.shape[1:3]), size, origins

    def _over_time(
        self, tokens_BTLD: Tensor, size_BTL: Tensor, origins: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        num_frames, num_patches = tokens_BTLD.shape[1:3]
        bias = rearrange(size_BTL.log(), "B T L -> (B L) T") if self.proportional_attention else None
        normed = rearrange(self.temporal_norm1(tokens_BTLD), "B T L D -> (B L) T D")
        attended = self.temporal_attn(normed, bias, self.merge_frames.needs)
        update = attended.output
        if self.temporal_scaling is not None:
            update = update * (resize_in_time(self.temporal_scaling, num_frames).tanh() + 1)
        update = rearrange(self.temporal_fc(update), "(B L) T D -> B T L D", L=num_patches)
        tokens, size = tokens_BTLD + self.drop_path(update), size_BTL
        plan = self.merge_frames.plan(_split(attended, num_patches), num_frames)
        if plan is not None:
            tokens, size = merge(tokens, size, plan)
            origins = None if origins is None else follow(origins, plan, num_frames, num_patches)
        return tokens, size, origins

    def _within_frames(
        self, cls_B1D: Tensor, tokens_BTLD: Tensor, size_BTL: Tensor, origins: Tensor | None
    ) -> BlockState:
        num_frames, num_patches = tokens_BTLD.shape[1:3]
        bias = F.pad(size_BTL.log(), (1, 0)).flatten(0, 1) if self.proportional_attention else None
        frames = torch.cat([repeat(cls_B1D, "B 1 D -> B T 1 D", T=num_frames), tokens_BTLD], dim=2)
        attended = self.attn(self.norm1(frames).flatten(0, 1), bias, self.merge_patches.needs)
        update = self.drop_path(attended.output.unflatten(0, (-1, num_frames)))
        cls, tokens, size = cls_B1D + update[:, :, :1].mean(dim=1), tokens_BTLD + update[:, :, 1:], size_BTL
        plan = self.merge_patches.plan(_split(_without_cls(attended), num_frames), num_patches)
        if plan is not None:
            tokens, size = merge(tokens, size, plan)
            origins = None if origins is None else follow(origins, plan, num_patches, 1)
        return cls, tokens, size, origins


class JointBlock(nn.Module):
    """A ViT block over all tokens it is given, with merging between attention and MLP (ToMe). Tokens are (B, N, D)."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        drop_path: float,
        merge_tokens: TokenAggregator,
        proportional_attention: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.merge_tokens = merge_tokens
        self.proportional_attention = proportional_attention

    def forward(self, cls_B1D: Tensor, tokens_BND: Tensor, size_BN: Tensor, origins: Tensor | None) -> BlockState:
        """The next state; tokens (B, N, D) and size (B, N) are fewer after merging."""
        together = torch.cat([cls_B1D, tokens_BND], dim=1)
        bias = F.pad(size_BN.log(), (1, 0)) if self.proportional_attention else None
        attended = self.attn(self.norm1(together), bias, self.merge_tokens.needs)
        together = together + self.drop_path(attended.output)
        num_tokens, size = tokens_BND.shape[1], size_BN
        plan = self.merge_tokens.plan(_without_cls(attended), num_tokens)
        if plan is not None:
            tokens, size = merge(together[:, 1:], size_BN, plan)
            together = torch.cat([together[:, :1], tokens], dim=1)
            origins = None if origins is None else follow(origins, plan, num_tokens, 1)
        together = together + self.drop_path(self.mlp(self.norm2(together)))
        return together[:, :1], together[:, 1:], size, origins


def resize_in_time(embedding_1TD: Tensor, num_frames: int) -> Tensor:
    """Nearest neighbour along time, as the reference does on load and at inference alike."""
    if embedding_1TD.shape[1] == num_frames:
        return embedding_1TD
    return F.interpolate(embedding_1TD.transpose(1, 2), size=num_frames, mode="nearest").transpose(1, 2)


def _split(attended: Attended, inner: int) -> Attended:
    """Undo the folding of (outer, inner) into one batch dimension in what the aggregators read."""
    key, importance = attended.key, attended.importance
    return attended._replace(
        key=None if key is None else key.unflatten(0, (-1, inner)),
        importance=None if importance is None else importance.unflatten(0, (-1, inner)),
    )


def _without_cls(attended: Attended) -> Attended:
    key, importance = attended.key, attended.importance
    return attended._replace(
        key=None if key is None else key[..., 1:, :], importance=None if importance is None else importance[..., 1:]
    )
