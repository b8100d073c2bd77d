"""TVTSv2's video tower as its released code computes it, in plain PyTorch: what ours is timed against.

Both attentions of a block copy their tokens into groups, put the class token's key and value before each, and write out
every attention map. All tokens go through the last norm and the projection.
Shapes: B batch, T frames, L patches a frame, N = 1 + T L tokens, D width, H heads, K head width.
"""

from typing import Literal

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.clip.blocks import ClipMlp
from models.tvts.attention import ClipwiseAttention
from models.tvts.blocks import TvtsBlock
from models.tvts.video_tower import VideoTower

GROUPS: dict[Literal["time", "space"], tuple[str, str]] = {
    "time": ("G (T L) K -> (G L) T K", "(G L) T K -> G (T L) K"),
    "space": ("G (T L) K -> (G T) L K", "(G T) L K -> G (T L) K"),
}
"""How patches become the groups of each attention, and patches again; G is batch and heads."""


class NaiveTower(nn.Module):
    """The weights of a tower of ours, computed in that way."""

    def __init__(self, tower: VideoTower) -> None:
        super().__init__()
        self.weights = tower

    def forward(self, video_BTCHW: Tensor) -> Tensor:
        """Projected tokens (B, N, E); the first is the embedding."""
        tower, num_frames = self.weights, video_BTCHW.shape[1]
        assert isinstance(tower.conv1, nn.Conv2d)
        patches = tower.conv1(video_BTCHW.flatten(0, 1)).flatten(2).transpose(1, 2)
        patches = patches.reshape(len(video_BTCHW), -1, patches.shape[-1])

        position, num_patches = tower.positional_embedding, patches.shape[1] // num_frames
        tokens = torch.cat([tower.class_embedding.expand(len(patches), 1, -1), patches], dim=1)
        times = tower.temporal_embedding[:num_frames].repeat_interleave(num_patches, dim=0)
        tokens = tokens + torch.cat([position[:1], position[1:].repeat(num_frames, 1) + times])
        tokens = tower.ln_pre(tokens)

        for block in tower.blocks:
            assert isinstance(block, TvtsBlock) and isinstance(block.mlp, ClipMlp)
            over_time = _attend(block.timeattn, block.ln_3(tokens), "time", num_frames)
            tokens = tokens + _attend(block.attn, block.ln_1(tokens + over_time), "space", num_frames)
            hidden = block.mlp.c_fc(block.ln_2(tokens))
            hidden = hidden * torch.sigmoid(1.702 * hidden)
            tokens = tokens + block.mlp.c_proj(hidden)
        return tower.ln_post(tokens) @ tower.proj


def _attend(attention: ClipwiseAttention, tokens: Tensor, axis: Literal["time", "space"], num_frames: int) -> Tensor:
    assert isinstance(attention.qkv, nn.Linear)
    projected = F.linear(tokens, attention.qkv.weight, attention.qkv.bias).chunk(3, dim=-1)
    query, key, value = (rearrange(part, "B N (H K) -> (B H) N K", H=attention.heads) for part in projected)
    query = query * query.shape[-1] ** -0.5

    # The class token sees all tokens of the clip.
    cls_context = _plain(query[:, :1], key, value)

    # Patches see their group, with the class token's key and value before it.
    into, back = GROUPS[axis]
    patch_query, patch_key, patch_value = (rearrange(part[:, 1:], into, T=num_frames) for part in (query, key, value))
    copies = len(patch_key) // len(key)
    cls_key, cls_value = (repeat(part[:, :1], "G S K -> (G R) S K", R=copies) for part in (key, value))
    context = _plain(patch_query, torch.cat([cls_key, patch_key], dim=1), torch.cat([cls_value, patch_value], dim=1))
    num_patches = (tokens.shape[1] - 1) // num_frames
    context = rearrange(context, back, G=len(query), **({"L": num_patches} if axis == "time" else {"T": num_frames}))
    context = torch.cat([cls_context, context], dim=1)
    return attention.proj(rearrange(context, "(B H) N K -> B N (H K)", H=attention.heads))


def _plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = torch.einsum("gqk,gnk->gqn", query, key)
    return torch.einsum("gqn,gnk->gqk", scores.softmax(dim=-1), value)
