"""The block of TVTSv2's video tower: attention over time only feeds attention over space, then the MLP.

Shapes: B batch, T frames, L patches a frame, N = 1 + T L tokens with the class token first, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.parts.aggregation import AggregationStep, MergePlan, TokenAggregator, follow, merge, note_step
from models.parts.chunks import plus_update
from models.parts.clip.blocks import NORM_EPS, ClipMlp
from models.parts.clip.sizes import Activation
from models.parts.kept_grid import KeptGrid
from models.tvts.attention import ClipwiseAttention


class ClipState(NamedTuple):
    """A clip between two blocks.

    Attributes:
        tokens: (B, N, D) class token, then frame by frame the patches; (B, 1, D) after a block that was asked for the
            class token alone, which leaves the other fields as they went in.
        size: (B, T, L) float32, how many original cells each patch token holds.
        origins: (B, T0, L0) for every original cell the flat index of the patch token that holds it, not counting the
            class token, -1 if it was dropped; None when nobody asks.
        grid: where patches lie if some have left before the first block; tokens are then (B, 1 + M, D).
    """

    tokens: Tensor
    size: Tensor
    origins: Tensor | None
    grid: KeptGrid | None = None


class EncodedClip(NamedTuple):
    """What the tower makes of clips.

    Attributes:
        embedding: (B, E) projected class token, not normalised.
        tokens: (B, 1 + N, D) what leaves the last block: class token, then frame by frame the patches that are left.
            Where the embedding alone was asked for, (B, 1, D) the class token; sizes then say nothing.
        size: (B, T, L) float32, how many original cells each patch token holds; (B, N), 0 for padding, if patches left
            before the first block.
        origins: (B, T0, L0) int64, for every original cell the index in `tokens` of the token that holds it, -1 if the
            cell was dropped; None unless asked for.
        mask: (B, 1 + N) bool, False for padding, which is zero in `tokens`; None if all clips have the same number.
    """

    embedding: Tensor
    tokens: Tensor
    size: Tensor
    origins: Tensor | None
    mask: Tensor | None = None


class TvtsBlock(nn.Module):
    """With x the input: u = x + time(x) is what space attends to, y = x + space(u), and the output y + mlp(y).

    The residual is x and not u, so attention over time changes a token only by what it makes it see in space. Frames
    merge before attention over space, x and u by one plan; patches merge before the MLP. The class token never merges.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        activation: Activation,
        merge_frames: TokenAggregator,
        merge_patches: TokenAggregator,
        proportional_attention: bool,
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = ClipwiseAttention(width, heads, "space")
        self.ln_2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp: nn.Module = ClipMlp(width, activation)
        self.ln_3 = nn.LayerNorm(width, eps=NORM_EPS)
        self.timeattn = ClipwiseAttention(width, heads, "time")
        self.merge_frames, self.merge_patches = merge_frames, merge_patches
        self.proportional_attention = proportional_attention

    def forward(
        self, state: ClipState, steps: list[AggregationStep] | None = None, class_only: bool = False
    ) -> ClipState:
        """The next state, of fewer frames and patches after merging; `steps` is given what merges.

        With `class_only`, what only patches need is left out: most queries, attention within frames, and the MLP.
        """
        if class_only:
            return state._replace(tokens=self._class_token(state))
        x, size, origins, grid = state
        if grid is not None:  # nothing else merges
            u = x + self.timeattn(self.ln_3(x), size.shape[1], grid=grid)[0]
            y = x + self.attn(self.ln_1(u), size.shape[1], grid=grid)[0]
            return state._replace(tokens=y + self.mlp(self.ln_2(y)))
        num_frames, num_patches = size.shape[1:]
        update, attended = self.timeattn(self.ln_3(x), num_frames, self._bias_size(size), self.merge_frames.needs)
        u = plus_update(x, update)
        plan = self.merge_frames.plan(attended, num_frames)
        if plan is not None:
            both, size = _merge(torch.cat([x, u], dim=-1), size, plan)
            x, u = both.chunk(2, dim=-1)
            origins = None if origins is None else follow(origins, plan, num_frames, num_patches)
            assert attended.key is not None
            note_step(steps, self.merge_frames, attended.key, plan, origins)

        num_frames = size.shape[1]
        update, attended = self.attn(self.ln_1(u), num_frames, self._bias_size(size), self.merge_patches.needs)
        y = plus_update(x, update)
        patches = y[:, 1:].detach().unflatten(1, size.shape[1:])
        plan = self.merge_patches.plan(attended, num_patches, patches)
        if plan is not None:
            compared = patches if attended.key is None else attended.key
            y, size = _merge(y, size, plan)
            origins = None if origins is None else follow(origins, plan, num_patches, 1)
            note_step(steps, self.merge_patches, compared, plan, origins)

        return ClipState(plus_update(y, self.mlp(self.ln_2(y))), size, origins)

    def _class_token(self, state: ClipState) -> Tensor:
        """The class token (B, 1, D) that `forward` makes.

        It reads patches as attention over time leaves them, so neither their attention within frames nor their MLP.
        """
        x, size, _, grid = state
        bias_size = self._bias_size(size) if grid is None else None
        update, attended = self.timeattn(self.ln_3(x), size.shape[1], bias_size, self.merge_frames.needs, grid)
        u = plus_update(x, update)
        plan = self.merge_frames.plan(attended, size.shape[1]) if grid is None else None
        if plan is not None:
            u, size = _merge(u, size, plan)

        bias = size.log().detach() if self.proportional_attention else None
        y = x[:, :1] + self.attn.from_class(self.ln_1(u), bias if grid is None else grid.row_bias)
        return y + self.mlp(self.ln_2(y))

    def fold_for_inference(self, dtype: torch.dtype, class_alone: bool) -> None:
        """See `VideoTower.fold_for_inference`; `class_alone`: whether it may be asked for the class token alone."""
        self.timeattn.fold_for_inference(dtype)
        self.attn.fold_for_inference(dtype, class_alone)
        if isinstance(self.mlp, ClipMlp):
            self.mlp = self.mlp.folded(dtype)

    def _bias_size(self, size_BTL: Tensor) -> Tensor | None:
        return size_BTL if self.proportional_attention else None


def _merge(tokens_BND: Tensor, size_BTL: Tensor, plan: MergePlan) -> tuple[Tensor, Tensor]:
    """Merge patch tokens along the plan's axis; the class token stays."""
    patches, size = merge(tokens_BND[:, 1:].unflatten(1, size_BTL.shape[1:]), size_BTL, plan)
    return torch.cat([tokens_BND[:, :1], patches.flatten(1, 2)], dim=1), size
