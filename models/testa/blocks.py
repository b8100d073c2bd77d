"""The two transformer blocks of the video encoder: divided space-time, and plain (joint or within a frame).

Shapes: B batch, T frames, L patches a frame, D width, N tokens without the class token.
A block takes and returns (class token, tokens, size, origins). `size` is how many original cells a token holds;
`origins` (B, T0, L0) is the flat index of the token that holds each original cell, or None if not tracked.
A block appends to the list `steps` what it merges or drops; that needs `origins`.
"""

import torch
from einops import repeat
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.aggregation import AggregationStep, TokenAggregator, follow, merge, note_step
from models.parts.attention import Attended, Attention
from models.parts.chunks import plus_update
from models.parts.packed import can_pack, packed, packed_parts
from models.parts.time_table import stretch_times

BlockState = tuple[Tensor, Tensor, Tensor, Tensor | None]
NORM_EPS = 1e-6


class DividedBlock(nn.Module):
    """Attention over time, merging of frames, attention within each frame, merging of patches, MLP.

    The class token joins the attention within frames, as one copy per frame whose updates are averaged, and the MLP.
    It skips the attention over time and never merges. Parameter names are TimeSformer's.
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
        # Attention over time.
        self.temporal_norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.temporal_attn = Attention(width, heads)
        self.temporal_fc: nn.Module = nn.Linear(width, width)
        scaling = None if temporal_scaling is None else nn.Parameter(torch.zeros(1, temporal_scaling, 1))
        self.temporal_scaling: nn.Parameter | None = scaling

        # Attention within frames.
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)

        # MLP.
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp: nn.Module = Mlp(width, int(width * mlp_ratio))

        # Stochastic depth, and what leaves on each axis.
        self.drop_path = DropPath(drop_path)
        self.merge_frames, self.merge_patches = merge_frames, merge_patches
        self.proportional_attention = proportional_attention

    def forward(
        self,
        cls_B1D: Tensor,
        tokens_BTLD: Tensor,
        size_BTL: Tensor,
        origins: Tensor | None,
        steps: list[AggregationStep] | None = None,
    ) -> BlockState:
        """The next state; tokens (B, T, L, D) and size (B, T, L) have fewer frames and patches after merging."""
        tokens, size, origins = self._over_time(tokens_BTLD, size_BTL, origins, steps)
        cls, tokens, size, origins = self._within_frames(cls_B1D, tokens, size, origins, steps)

        # The MLP treats all tokens alike.
        together = torch.cat([cls, tokens.flatten(1, 2)], dim=1)
        together = plus_update(together, self.drop_path(self.mlp(self.norm2(together))))
        return together[:, :1], together[:, 1:].unflatten(1, tokens.shape[1:3]), size, origins

    @torch.no_grad()
    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """See `VideoEncoder.fold_for_inference`."""
        # Two linear layers in a row become one. A scaling between them prevents it.
        first, second = self.temporal_attn.proj, self.temporal_fc
        if isinstance(second, nn.Linear) and self.temporal_scaling is None:
            weight, bias = folded(first, second)
            assert isinstance(first, nn.Linear)
            first.weight.copy_(weight)
            first.bias.copy_(bias)
            self.temporal_fc = nn.Identity()

        for attention in (self.temporal_attn, self.attn):
            _pack(attention, dtype)
        self.mlp = _packed_mlp(self.mlp, dtype)

    def _over_time(
        self, tokens_BTLD: Tensor, size_BTL: Tensor, origins: Tensor | None, steps: list[AggregationStep] | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        num_frames, num_patches = tokens_BTLD.shape[1:3]

        # Proportional attention: a token that holds n cells counts n times, as log(n) is added to its scores.
        bias = size_BTL.log().transpose(1, 2) if self.proportional_attention else None
        attended = self.temporal_attn(self.temporal_norm1(tokens_BTLD), bias, self.merge_frames.needs)

        update = self.temporal_update(attended.context, self.folds(num_frames, num_patches))
        tokens, size = plus_update(tokens_BTLD, self.drop_path(update)), size_BTL

        # Merge or drop whole frames: all patches of a frame follow one plan.
        plan = self.merge_frames.plan(attended, num_frames)
        if plan is not None:
            tokens, size = merge(tokens, size, plan)
            origins = None if origins is None else follow(origins, plan, num_frames, num_patches)
            assert attended.key is not None
            note_step(steps, self.merge_frames, attended.key, plan, origins)
        return tokens, size, origins

    def temporal_update(
        self, context: Tensor, fold: bool, frame_BM: Tensor | None = None, num_frames: int | None = None
    ) -> Tensor:
        """`temporal_attn.proj`, then `temporal_fc`; folded into one matrix where `fold` says so.

        The context is (B, T, L, D), or (B, M, D) of tokens whose frames, of `num_frames`, are given.
        """
        first, second = self.temporal_attn.proj, self.temporal_fc
        if fold:
            return F.linear(context, *folded(first, second))
        update = first(context)
        if self.temporal_scaling is not None:
            scaling = stretch_times(self.temporal_scaling, num_frames or context.shape[1], "nearest")
            factor = (scaling.tanh() + 1).unsqueeze(-1)
            update = update * (factor if frame_BM is None else factor.flatten()[frame_BM].unsqueeze(-1))
        return second(update)

    def folds(self, num_frames: int, num_patches: int) -> bool:
        """Whether to fold the two layers into one matrix: cheaper once a video has more tokens than they are wide.

        Depends on a single video, so that its result does not depend on the batch.
        """
        two_in_a_row = isinstance(self.temporal_fc, nn.Linear) and self.temporal_scaling is None
        return two_in_a_row and num_frames * num_patches > self.attn.width

    def _within_frames(
        self,
        cls_B1D: Tensor,
        tokens_BTLD: Tensor,
        size_BTL: Tensor,
        origins: Tensor | None,
        steps: list[AggregationStep] | None,
    ) -> BlockState:
        num_frames, num_patches = tokens_BTLD.shape[1:3]

        # Every frame attends with its own copy of the class token, of size 1 and so without bias.
        bias = F.pad(size_BTL.log(), (1, 0)).flatten(0, 1).unsqueeze(1) if self.proportional_attention else None
        frames = torch.cat([repeat(cls_B1D, "B 1 D -> B T 1 D", T=num_frames), tokens_BTLD], dim=2)
        attended = self.attn(self.norm1(frames).flatten(0, 1).unsqueeze(2), bias, self.merge_patches.needs, 1)

        # Add the update to the tokens, and its mean over frames to the one class token.
        update = self.drop_path(self.attn.proj(attended.context).squeeze(2).unflatten(0, (-1, num_frames)))
        cls, tokens, size = cls_B1D + update[:, :, :1].mean(dim=1), tokens_BTLD + update[:, :, 1:], size_BTL

        # Merge or drop patches within each frame. Saliency compares features, the other reducers mean keys.
        attended = by_frame(attended.of_tokens(1), num_frames)
        plan = self.merge_patches.plan(attended, num_patches, tokens.detach())
        if plan is not None:
            compared = tokens if attended.key is None else attended.key
            tokens, size = merge(tokens, size, plan)
            origins = None if origins is None else follow(origins, plan, num_patches, 1)
            note_step(steps, self.merge_patches, compared, plan, origins)
        return cls, tokens, size, origins


class JointBlock(nn.Module):
    """A ViT block over all given tokens, which merges them between attention and MLP (ToMe). Tokens are (B, N, D)."""

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
        self.mlp: nn.Module = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.merge_tokens = merge_tokens
        self.proportional_attention = proportional_attention

    def forward(
        self,
        cls_B1D: Tensor,
        tokens_BND: Tensor,
        size_BN: Tensor,
        origins: Tensor | None,
        steps: list[AggregationStep] | None = None,
    ) -> BlockState:
        """The next state; tokens (B, N, D) and size (B, N) are fewer after merging."""
        # Attention over all tokens, with log(size) as key bias; 0 for the class token.
        together = torch.cat([cls_B1D, tokens_BND], dim=1)
        bias = F.pad(size_BN.log(), (1, 0)).unsqueeze(1) if self.proportional_attention else None
        attended = self.attn(self.norm1(together).unsqueeze(2), bias, self.merge_tokens.needs, 1)
        together = plus_update(together, self.drop_path(self.attn.proj(attended.context).squeeze(2)))

        # Merge or drop tokens; the class token stays out of it.
        num_tokens, size = tokens_BND.shape[1], size_BN
        attended = attended.of_tokens(1)
        plan = self.merge_tokens.plan(attended, num_tokens, together[:, 1:].detach())
        if plan is not None:
            compared = together[:, 1:] if attended.key is None else attended.key
            tokens, size = merge(together[:, 1:], size_BN, plan)
            together = torch.cat([together[:, :1], tokens], dim=1)
            origins = None if origins is None else follow(origins, plan, num_tokens, 1)
            note_step(steps, self.merge_tokens, compared, plan, origins)

        together = plus_update(together, self.drop_path(self.mlp(self.norm2(together))))
        return together[:, :1], together[:, 1:], size, origins

    @torch.no_grad()
    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """See `VideoEncoder.fold_for_inference`."""
        _pack(self.attn, dtype)
        self.mlp = _packed_mlp(self.mlp, dtype)


def folded(first: nn.Module, second: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of one linear layer that equals two in a row."""
    assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
    return second.weight @ first.weight, F.linear(first.bias, second.weight, second.bias)


def _pack(attention: Attention, dtype: torch.dtype) -> None:
    if isinstance(attention.qkv, nn.Linear) and can_pack(attention.qkv.weight):
        assert isinstance(attention.proj, nn.Linear)
        attention.qkv, attention.proj = packed_parts(attention.qkv, 3, dtype), packed(attention.proj, dtype)


def _packed_mlp(mlp: nn.Module, dtype: torch.dtype) -> nn.Module:
    if not isinstance(mlp, Mlp) or not can_pack(mlp.fc1.weight):
        return mlp
    assert isinstance(mlp.fc1, nn.Linear) and isinstance(mlp.fc2, nn.Linear)
    return nn.Sequential(packed(mlp.fc1, dtype, "gelu"), packed(mlp.fc2, dtype))


def by_frame(attended: Attended, num_frames: int) -> Attended:
    """Reshape what aggregators read after attention within frames, from (B T, L, ...) to (B, T, L, ...)."""
    key, importance, sharpness = (
        None if part is None else part.unflatten(0, (-1, num_frames))
        for part in (attended.key, attended.importance, attended.sharpness)
    )
    return attended._replace(key=key, importance=importance, sharpness=sharpness)
