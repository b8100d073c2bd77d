"""Divided attention of a clip with one class token: each token sees its group and the class token.

Shapes: B batch, T frames, L patches a frame, N = 1 + T L tokens with the class token first, D width, H heads,
K = D / H head width.
"""

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.attention import MOST_TOKENS_BY_HEAD, Attended, Needs
from models.parts.kept_grid import KeptGrid
from models.parts.packed import can_pack, packed, packed_parts
from models.parts.precision import at_least_float32_type
from models.parts.sharpness import sharpness
from models.parts.short_attention import attend_from_one, attend_in_short, suits_short
from models.parts.tiled_attention import attend_in_tiles, suits_tiles
from models.tvts.class_share import ClassShare, Projection, class_share, class_share_of_tokens, joined_shares

Axis = Literal["time", "space"]


class ClipwiseAttention(nn.Module):
    """Attention over time (all frames of one place) or space (all patches of one frame), named `qkv` and `proj`.

    The class token is a key of every group, and its own query sees all tokens of the clip. As in Frozen in Time
    (ICCV 2021), after which TVTSv2 is built.
    """

    def __init__(self, width: int, heads: int, axis: Axis) -> None:
        super().__init__()
        self.heads, self.axis = heads, axis
        self.qkv: nn.Module = nn.Linear(width, 3 * width)
        self.proj: nn.Module = nn.Linear(width, width)
        self._before_packing: Projection | None = None

    def fold_for_inference(self, dtype: torch.dtype, class_alone: bool = False) -> None:
        """See `VideoTower.fold_for_inference`; packed weights serve `from_class` only with `class_alone`."""
        if isinstance(self.qkv, nn.Linear) and can_pack(self.qkv.weight):
            assert isinstance(self.proj, nn.Linear)
            if class_alone:
                self._before_packing = Projection(self.qkv.weight.detach(), self.qkv.bias.detach())
            self.qkv, self.proj = packed_parts(self.qkv, 3, dtype), packed(self.proj, dtype)

    def forward(
        self,
        tokens_BND: Tensor,
        num_frames: int,
        size_BTL: Tensor | None = None,
        needs: Needs = "nothing",
        grid: KeptGrid | None = None,
    ) -> tuple[Tensor, Attended]:
        """Update (B, N, D) of all tokens, and what reducers read of the patches.

        Args:
            size_BTL: how many original cells a token holds; its logarithm is added to the scores of each key.
            needs: for reducers; what is returned is laid out as `TokenAggregator.plan` takes it. Sharpness is of
                patches, and of their attention to each other within a frame.
            grid: where the patches lie, if some have left: tokens are (B, 1 + M, D), and sizes are the grid's.
        """
        query, key, value = self._project(tokens_BND)
        if grid is not None:
            return self._over_kept(query, key, value, grid)
        bias_BTL = None if size_BTL is None else size_BTL.log().detach().to(query.dtype)

        if needs != "probabilities" and self._suits_short(query, num_frames):
            context_BND = self._attend_in_short(query, key, value, num_frames, bias_BTL)
            attended = self._observed(query, key, num_frames, needs)
        else:
            cls_context = self._attend_from_cls(query[:, :1], key, value, bias_BTL)
            context, attended = self._attend_in_groups(query, key, value, num_frames, bias_BTL, needs)
            context_BND = torch.cat([cls_context, context.flatten(1, 2)], dim=1)
        update = self.proj(context_BND)
        return update, attended._replace(context=update)

    def _over_kept(self, query: Tensor, key: Tensor, value: Tensor, grid: KeptGrid) -> tuple[Tensor, Attended]:
        """Update (B, 1 + M, D) of a row of patches: each sees its group and the class token, which sees all."""
        num_frames = grid.size.shape[1]
        cls_context = self._attend_from_cls(query[:, :1], key, value, grid.row_bias.to(query.dtype))

        def in_grid(part_BNHK: Tensor) -> Tensor:
            patches = grid.spread(part_BNHK[:, 1:].flatten(2)).flatten(1, 2).unflatten(-1, (self.heads, -1))
            return torch.cat([part_BNHK[:, :1], patches], dim=1)

        bias = grid.bias.to(query.dtype)
        context, attended = self._attend_in_groups(
            in_grid(query), in_grid(key), in_grid(value), num_frames, bias, "nothing"
        )
        update = self.proj(torch.cat([cls_context, grid.collect(context)], dim=1))
        return update, attended._replace(context=update)

    def from_class(self, tokens_BND: Tensor, bias: Tensor | None = None) -> Tensor:
        """Update (B, 1, D) of the class token alone, with `bias` (B, ...) of N - 1 numbers added to patches' scores."""
        row_bias = None if bias is None else F.pad(bias.flatten(1), (1, 0))
        context = self._class_share(tokens_BND[:, :1], tokens_BND, row_bias).context
        return self.proj(context.flatten(1).unsqueeze(1).to(tokens_BND.dtype))

    def attend_part(
        self, tokens_BND: Tensor, num_frames: int, size_BTL: Tensor | None = None, needs: Needs = "nothing"
    ) -> tuple[Tensor, ClassShare, Attended]:
        """The same for some of a clip's groups, after the class token: a few places over time, or a few frames.

        Returns the update (B, T, L, D) of their tokens, what the class token sees in them (for `class_update`), and
        what reducers read.
        """
        query, key, value = self._project(tokens_BND)
        bias_BTL = None if size_BTL is None else size_BTL.log().detach().to(query.dtype)

        share = class_share(query[:, :1], key[:, 1:], value[:, 1:], bias_BTL)
        context, attended = self._attend_in_groups(query, key, value, num_frames, bias_BTL, needs)
        return self.proj(context), share, attended

    def class_share_of_part(self, tokens_BND: Tensor, size_BTL: Tensor | None = None) -> ClassShare:
        """The share that `attend_part` returns, without the rest."""
        bias_BTL = None if size_BTL is None else size_BTL.log().detach()
        return self._class_share(tokens_BND[:, :1], tokens_BND[:, 1:], bias_BTL)

    def class_update(self, cls_B1D: Tensor, shares: list[ClassShare]) -> Tensor:
        """Update (B, 1, D) of the class token, which sees itself and all the parts of `attend_part`."""
        query, key, value = self._project(cls_B1D)
        context = joined_shares([class_share(query, key, value, None), *shares])
        return self.proj(context.flatten(1).unsqueeze(1).to(query.dtype))

    def _project(self, tokens_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, N, H, K)."""
        if isinstance(self.qkv, nn.ModuleList):  # packed for inference
            parts = tuple(part(tokens_BND) for part in self.qkv)
        else:
            parts = self.qkv(tokens_BND).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        return query, key, value

    def _class_share(self, cls_B1D: Tensor, tokens_BND: Tensor, bias: Tensor | None) -> ClassShare:
        """What the class token sees in tokens, whose own queries, keys and values are not computed."""
        if isinstance(self.qkv, nn.Linear):
            plain = Projection(self.qkv.weight, self.qkv.bias)
        else:
            assert self._before_packing is not None, "packed without `class_alone`"
            plain = self._before_packing
        asking, keys, values = map(Projection, plain.weight.chunk(3), plain.bias.chunk(3))
        query_B1HK = F.linear(cls_B1D, *asking).unflatten(-1, (self.heads, -1))
        return class_share_of_tokens(query_B1HK, tokens_BND, keys, values, bias)

    def _attend_in_groups(
        self, query: Tensor, key: Tensor, value: Tensor, num_frames: int, bias_BTL: Tensor | None, needs: Needs
    ) -> tuple[Tensor, Attended]:
        """Context (B, T, L, D) of the patches, each of which sees its group and the class token; what reducers read."""
        queries = query[:, 1:].unflatten(1, (num_frames, -1))
        keys, values = (self._with_cls(part, num_frames) for part in (key, value))
        bias = None if bias_BTL is None else self._group_bias(bias_BTL)
        importance = None
        if needs == "probabilities":
            grouped_context, importance = self._attend_with_probabilities(queries, keys, values, bias)
            context = self._ungrouped(grouped_context, len(query), num_frames)
        elif self.axis == "time" and num_frames > MOST_TOKENS_BY_HEAD and suits_tiles(queries):
            key_bias = None if bias_BTL is None else F.pad(bias_BTL, (0, 0, 1, 0)).transpose(1, 2)
            context = attend_in_tiles(queries, keys, values, key_bias).flatten(3)
        else:
            grouped = [self._grouped(part) for part in (queries, keys, values)]
            grouped_context = F.scaled_dot_product_attention(grouped[0], grouped[1], grouped[2], attn_mask=bias)
            context = self._ungrouped(grouped_context, len(query), num_frames)

        return context, self._observed(query, key, num_frames, needs)._replace(importance=importance)

    def _suits_short(self, query: Tensor, num_frames: int) -> bool:
        num_patches = (query.shape[1] - 1) // num_frames
        return suits_short(query, 1 + (num_frames if self.axis == "time" else num_patches))

    def _attend_in_short(
        self, query: Tensor, key: Tensor, value: Tensor, num_frames: int, bias_BTL: Tensor | None
    ) -> Tensor:
        """Context (B, N, D) of all tokens, without gradient; nothing is put together and cut apart on the way."""
        context = torch.empty_like(query)
        cls_bias = None if bias_BTL is None else F.pad(bias_BTL.flatten(1), (1, 0))
        context[:, 0] = attend_from_one(query[:, 0], key, value, cls_bias)

        # Tokens that see each other come first, then their groups.
        by_group = "B (T L) H K -> B T L H K" if self.axis == "time" else "B (T L) H K -> B L T H K"
        queries, keys, values, contexts = (
            rearrange(part[:, 1:], by_group, T=num_frames) for part in (query, key, value, context)
        )
        groups = (-1, -1, queries.shape[2], -1, -1)
        cls_keys, cls_values = (part[:, :1, None].expand(groups) for part in (key, value))
        bias = None
        if bias_BTL is not None:
            bias = F.pad(bias_BTL.transpose(1, 2) if self.axis == "time" else bias_BTL, (1, 0))
        attend_in_short(queries, (cls_keys, keys), (cls_values, values), bias, contexts)
        return context.flatten(2)

    def _observed(self, query: Tensor, key: Tensor, num_frames: int, needs: Needs) -> Attended:
        """What reducers read of the patches, but for the attention they receive; without context."""
        patch_key, sharp = None, None
        if needs not in ("nothing", "sharpness"):
            patch_key = key[:, 1:].detach().mean(dim=2).unflatten(1, (num_frames, -1))
            if self.axis == "time":
                patch_key = patch_key.transpose(1, 2)
        if needs == "sharpness":
            sharp = self._sharpness(query, key, num_frames)
        return Attended(query.new_empty(0), patch_key, None, sharp)

    def _sharpness(self, query_BNHK: Tensor, key_BNHK: Tensor, num_frames: int) -> Tensor:
        """Sharpness (B, T, L) of what the patches of a frame pay to each other."""
        assert self.axis == "space", "sharpness is of patches in one frame"
        queries, keys = (part[:, 1:].detach().unflatten(1, (num_frames, -1)) for part in (query_BNHK, key_BNHK))
        return sharpness(queries.flatten(0, 1), keys.flatten(0, 1)).unflatten(0, (-1, num_frames))

    def _attend_from_cls(self, query_B1HK: Tensor, key: Tensor, value: Tensor, bias_BTL: Tensor | None) -> Tensor:
        """Context (B, 1, D) of the class token, which sees every token."""
        bias = None if bias_BTL is None else F.pad(bias_BTL.flatten(1), (1, 0))[:, None, None]
        queries, keys, values = (part.transpose(1, 2) for part in (query_B1HK, key, value))
        context = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        return context.transpose(1, 2).flatten(2)

    def _with_cls(self, part_BNHK: Tensor, num_frames: int) -> Tensor:
        """Keys or values (B, T, L, H, K) with those of the class token put first along the attended axis."""
        patches = part_BNHK[:, 1:].unflatten(1, (num_frames, -1))
        cls = part_BNHK[:, :1, None]
        if self.axis == "time":
            return torch.cat([cls.expand(-1, -1, patches.shape[2], -1, -1), patches], dim=1)
        return torch.cat([cls.expand(-1, num_frames, -1, -1, -1), patches], dim=2)

    def _grouped(self, part_BTLHK: Tensor) -> Tensor:
        """The layout of attention kernels (batch, heads, tokens, K), without moving anything."""
        if self.axis == "time":
            return part_BTLHK.flatten(2, 3).transpose(1, 2)
        return part_BTLHK.flatten(0, 1).transpose(1, 2)

    def _group_bias(self, bias_BTL: Tensor) -> Tensor:
        """Log sizes of each group's keys, the class token's first, laid out as scores are."""
        if self.axis == "time":
            keys_first = F.pad(bias_BTL, (0, 0, 1, 0)).transpose(1, 2)
            return keys_first.repeat_interleave(self.heads, dim=1).unsqueeze(2)
        return F.pad(bias_BTL, (1, 0)).flatten(0, 1)[:, None, None]

    def _ungrouped(self, context: Tensor, batch: int, num_frames: int) -> Tensor:
        if self.axis == "time":
            return rearrange(context, "B (L H) T K -> B T L (H K)", H=self.heads)
        return rearrange(context, "(B T) H L K -> B T L (H K)", B=batch, T=num_frames)

    def _attend_with_probabilities(
        self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Context as kernels lay it out, and the attention that each patch receives from the others of its group.

        Equation 1 of TESTA: the mean over heads, summed over queries, without what a token gives itself.
        """
        batch, num_frames = queries.shape[:2]
        # Contiguous, or equal tokens would not tie: products round by how the matrices lie in memory.
        queries, keys, values = (self._grouped(part).contiguous() for part in (queries, keys, values))
        scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
        probabilities = (scores if bias is None else scores + bias).softmax(dim=-1, dtype=at_least_float32_type(scores))

        given = probabilities.detach()[..., 1:]  # to patches, not to the class token
        if self.axis == "time":
            given = rearrange(given, "B (L H) Q N -> B L H Q N", H=self.heads)
        else:
            given = rearrange(given, "(B T) H Q N -> B T H Q N", B=batch, T=num_frames)
        given = given.mean(dim=2)
        importance = given.sum(dim=-2) - given.diagonal(dim1=-2, dim2=-1)
        return probabilities.to(values.dtype) @ values, importance
