"""UMT's video encoder as vid-TLDR's released code computes it, in plain PyTorch: what ours is timed against.

Every block writes out its attention map, and where the reducer is on a second one without log(size), whether the block
reduces or not. Merging is by a full sort and one scatter for tokens and another for sizes.
Shapes: B batch, N tokens, D width, H heads.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.umt.blocks import BiasedAttention, JointSpaceTimeBlock
from models.umt.video_encoder import VideoEncoder


class NaiveJointEncoder(nn.Module):
    """The weights and schedule of an encoder of ours, computed in that way."""

    def __init__(self, encoder: VideoEncoder) -> None:
        super().__init__()
        self.weights = encoder

    def forward(self, video_BTCHW: Tensor) -> Tensor:
        """Tokens (B, N, D) that are left, after the last norm."""
        trunk = self.weights.encoder
        tokens = trunk.patch_embed.proj(video_BTCHW.transpose(1, 2)).flatten(2).transpose(1, 2)
        tokens = tokens + self.weights.position.flatten(0, 1).to(tokens.dtype)
        blocks = [block for block in trunk.blocks if isinstance(block, JointSpaceTimeBlock)]
        is_on = any(block.merge_tokens.needs != "nothing" for block in blocks)
        size = None
        for block in blocks:
            context, unbiased = _attend(block.attn, block.norm1(tokens), size, is_on)
            tokens = tokens + context
            r = block.merge_tokens.num_leaving(tokens.shape[1]) if is_on else 0
            if unbiased is not None and r:
                tokens, size = _merge(tokens, size, _saliency(unbiased), r)
            tokens = tokens + block.mlp(block.norm2(tokens))
        return trunk.norm(tokens)


def _attend(
    attention: BiasedAttention, tokens: Tensor, size: Tensor | None, is_on: bool
) -> tuple[Tensor, Tensor | None]:
    """The block's output, and the map that saliency is read from (B, H, N, N)."""
    assert isinstance(attention.qkv, nn.Linear)
    bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
    projected = F.linear(tokens, attention.qkv.weight, bias)
    query, key, value = (part.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for part in projected.chunk(3, -1))
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    unbiased = scores.softmax(dim=-1) if is_on else None
    if size is not None:
        scores = scores + size.log()[:, None, None, :, 0].to(scores.dtype)
    context = scores.softmax(dim=-1) @ value
    return attention.proj(context.transpose(1, 2).flatten(2)), unbiased


@torch.no_grad()
def _saliency(attention: Tensor) -> Tensor:
    mean_map = attention.float().mean(dim=1)
    sharp = (mean_map * mean_map.log()).sum(dim=-1)
    least, most = sharp.amin(dim=-1, keepdim=True), sharp.amax(dim=-1, keepdim=True)
    scaled = (sharp - least) / (most - least)
    scaled = scaled - scaled.mean(dim=-1, keepdim=True)
    return (scaled / scaled.amax(dim=-1, keepdim=True)).clamp(min=0).unsqueeze(-1)


def _merge(tokens: Tensor, size: Tensor | None, weight: Tensor, r: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        metric = tokens / tokens.norm(dim=-1, keepdim=True)
        similarity = (metric[:, ::2] @ metric[:, 1::2].transpose(-1, -2) + 1) / 2
        best, match = similarity.max(dim=-1)
        ranking = best.argsort(dim=-1, descending=True).unsqueeze(-1)
        leave, stay = ranking[:, :r], ranking[:, r:].sort(dim=1).values
        target = match.unsqueeze(-1).gather(1, leave)
        weights = weight[:, ::2].gather(1, leave)
    size = tokens.new_ones(*tokens.shape[:2], 1, dtype=torch.float32) if size is None else size

    def merged(values: Tensor) -> Tensor:
        values, width = values.float(), values.shape[-1]
        even, odd = values[:, ::2], values[:, 1::2]
        left, moved = (even.gather(1, index.expand(-1, -1, width)) for index in (stay, leave))
        return torch.cat([left, odd.scatter_reduce(1, target.expand_as(moved), moved * weights, reduce="sum")], dim=1)

    most = size.amax(dim=1, keepdim=True)
    merged_size = merged(size)
    return (merged(tokens * (size / most)) / (merged_size / most)).to(tokens.dtype), merged_size
