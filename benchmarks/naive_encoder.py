"""The video encoder as TESTA's released code computes it, in plain PyTorch: what ours is timed against.

One flat row of tokens, patch-major; attention with its scores written out; keys averaged in every block that merges;
merging by full sorts and one scatter for tokens and another for sizes. Weights are `VideoEncoder`'s, under its names.
Shapes: B batch, T frames, L patches, D width, H heads, K head width, N tokens along the axis that is reduced.
"""

from typing import Literal

import torch
from einops import rearrange, repeat
from timm.layers import Mlp, PatchEmbed
from torch import Tensor, nn
from torch.nn import functional as F

from configs.models.testa import block_schedules
from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.testa.blocks import NORM_EPS


def has_reference(model: TestaConfig, aggregation: AggregationConfig) -> bool:
    """Whether the released code can do that: divided attention, and merging by geometry with votes or none."""
    plain = (aggregation.frame_match, aggregation.order) == ("vote", "reference")
    unweighted = not (aggregation.proportional_attention or aggregation.weighted_pooling or model.temporal_scaling)
    return model.attention == "divided" and aggregation.reducer in ("none", "geometry") and plain and unweighted


class NaiveAttention(nn.Module):
    """Self-attention over (M, N, D); also returns the keys averaged over heads (M, N, K)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.attn_drop = nn.Dropout(0.0)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(0.0)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Output (M, N, D) and keys (M, H, N, K)."""
        query, key, value = rearrange(self.qkv(tokens), "M N (P H K) -> P M H N K", P=3, H=self.heads)
        scores = (query @ key.transpose(-2, -1)) * self.scale
        context = self.attn_drop(scores.softmax(dim=-1)) @ value
        output = self.proj_drop(self.proj(rearrange(context, "M H N K -> M N (H K)")))
        return output, key


def naive_merge(
    metric: Tensor, tokens: Tensor, size: Tensor, r: int, axis: Literal["frames", "patches"]
) -> tuple[Tensor, Tensor]:
    """Merge r of the N along the last axis but one into others, for frames by a vote of their patches.

    Args:
        metric: (B, L, N, K) for frames, (B * T, N, K) for patches with the class token as number 0.
        tokens: as the metric, of width D.
        size: as the metric, of width 1.
        r: how many leave; as many as the axis holds if that is less.
        axis: which of the two.
    """
    r = min(r, (metric.shape[-2] - 1) // 2)
    if r <= 0:
        return tokens, size
    with torch.no_grad():
        metric = metric / metric.norm(dim=-1, keepdim=True)
        scores = metric[..., ::2, :] @ metric[..., 1::2, :].transpose(-1, -2)
        if axis == "patches":
            scores[..., 0, :] = -torch.inf
        best, match = scores.max(dim=-1)
        if axis == "frames":
            best = best.mode(dim=-2, keepdim=True).values.expand_as(best)
            match = match.mode(dim=-2, keepdim=True).values.expand_as(match)
        ranking = best.argsort(dim=-1, descending=True).unsqueeze(-1)
        leave, stay = ranking[..., :r, :], ranking[..., r:, :].sort(dim=-2).values
        target = match.unsqueeze(-1).gather(-2, leave)

    def merged(values: Tensor) -> Tensor:
        width = values.shape[-1]
        even, odd = values[..., ::2, :], values[..., 1::2, :]
        left, moved = (even.gather(-2, index.expand(*index.shape[:-1], width)) for index in (stay, leave))
        return torch.cat([left, odd.scatter_reduce(-2, target.expand_as(moved), moved, reduce="sum")], dim=-2)

    merged_size = merged(size)
    return merged(tokens * size) / merged_size, merged_size


class NaiveBlock(nn.Module):
    """Attention over time, merging of frames, attention within each frame, merging of patches, MLP."""

    def __init__(self, model: TestaConfig, frames_leaving: int, patches_leaving: int) -> None:
        super().__init__()
        width, heads = model.width, model.heads
        self.temporal_norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.temporal_attn = NaiveAttention(width, heads)
        self.temporal_fc = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = NaiveAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, int(width * model.mlp_ratio))
        self.frames_leaving, self.patches_leaving = frames_leaving, patches_leaving

    def forward(self, tokens: Tensor, size: Tensor, num_frames: int) -> tuple[Tensor, Tensor, int]:
        """Tokens (B, 1 + L * T, D) and size (B, L, T, 1), both patch-major, and the number of frames: the next ones."""
        cls, patches = tokens[:, :1], tokens[:, 1:]
        num_patches = patches.shape[1] // num_frames
        over_time = rearrange(patches, "B (L T) D -> (B L) T D", T=num_frames)
        output, key = self.temporal_attn(self.temporal_norm1(over_time))
        output = self.temporal_fc(rearrange(output, "(B L) T D -> B (L T) D", L=num_patches))
        patches = rearrange(patches + output, "B (L T) D -> B L T D", T=num_frames)
        if self.frames_leaving:
            key = rearrange(key.mean(dim=1), "(B L) T K -> B L T K", L=num_patches)
            patches, size = naive_merge(key, patches, size, self.frames_leaving, "frames")
            num_frames = patches.shape[2]

        frames = rearrange(patches, "B L T D -> (B T) L D")
        copies = repeat(cls, "B 1 D -> (B T) 1 D", T=num_frames)
        output, key = self.attn(self.norm1(torch.cat([copies, frames], dim=1)))
        cls = cls + rearrange(output[:, :1], "(B T) 1 D -> B T D", T=num_frames).mean(dim=1, keepdim=True)
        frames = frames + output[:, 1:]
        if self.patches_leaving:
            copies = repeat(cls, "B 1 D -> (B T) 1 D", T=num_frames)
            frame_size = rearrange(size, "B L T 1 -> (B T) L 1")
            frame_size = torch.cat([torch.ones_like(frame_size[:, :1]), frame_size], dim=1)
            together = torch.cat([copies, frames], dim=1)
            together, frame_size = naive_merge(key.mean(dim=1), together, frame_size, self.patches_leaving, "patches")
            frames = together[:, 1:]
            size = rearrange(frame_size[:, 1:], "(B T) L 1 -> B L T 1", T=num_frames)
        tokens = torch.cat([cls, rearrange(frames, "(B T) L D -> B (L T) D", T=num_frames)], dim=1)
        return tokens + self.mlp(self.norm2(tokens)), size, num_frames


class NaiveEncoder(nn.Module):
    """Encode videos (B, T, 3, H, W) of the configured size; ValueError for what the released code cannot do."""

    def __init__(self, model: TestaConfig, video: VideoConfig, aggregation: AggregationConfig) -> None:
        super().__init__()
        if not has_reference(model, aggregation):
            raise ValueError(
                "the naive encoder is the released code's: divided attention without temporal_scaling, reducer none or "
                "geometry with frame_match vote, order reference and no use of sizes"
            )

        schedules = block_schedules(model, video, aggregation)
        self.patch_embed = PatchEmbed(video.image_size, model.patch_size, embed_dim=model.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, model.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.patch_embed.num_patches, model.width))
        self.time_embed = nn.Parameter(torch.zeros(1, video.num_frames, model.width))
        self.blocks = nn.ModuleList(
            NaiveBlock(model, *leaving) for leaving in zip(schedules["frames"], schedules["patches"], strict=True)
        )
        self.norm = nn.LayerNorm(model.width, eps=NORM_EPS)

    def forward(self, video_BTCHW: Tensor) -> Tensor:
        """Tokens (B, 1 + N, D): the class token, then those that are left, frame by frame."""
        batch, num_frames = video_BTCHW.shape[:2]
        frames = self.patch_embed(rearrange(video_BTCHW, "B T C H W -> (B T) C H W"))
        frames = torch.cat([self.cls_token.expand(len(frames), -1, -1), frames], dim=1) + self.pos_embed
        cls = rearrange(frames[:, :1], "(B T) 1 D -> B T D", B=batch)[:, :1]
        time: Tensor = self.time_embed
        if time.shape[1] != num_frames:
            time = F.interpolate(time.transpose(1, 2), size=num_frames, mode="nearest").transpose(1, 2)
        over_time = rearrange(frames[:, 1:], "(B T) L D -> (B L) T D", B=batch) + time
        tokens = torch.cat([cls, rearrange(over_time, "(B L) T D -> B (L T) D", B=batch)], dim=1)
        size = torch.ones_like(over_time[..., :1]).unflatten(0, (batch, -1))
        for block in self.blocks:
            tokens, size, num_frames = block(tokens, size, num_frames)
        # The released code ends patch-major; frame-major, as ours, for whoever compares.
        tokens = self.norm(tokens)

        return torch.cat([tokens[:, :1], rearrange(tokens[:, 1:], "B (L T) D -> B (T L) D", T=num_frames)], dim=1)
