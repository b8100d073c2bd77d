"""TempMe in the video tower: frames are joined to groups before some blocks, and patches of a group merge.

By the first block that sees all frames, they are one group. Class tokens never merge; object tokens stand beside the
group of their frames. `models.parts.frame_merging` says which patches merge.
Shapes: B clips, T frames, G groups, C class tokens of a group, N patches of a group, O objects of a group, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from configs.frame_merging import GroupStep
from models.parts.aggregation import AggregationStep
from models.parts.bert_attention import KeysValues
from models.parts.clip.blocks import ClipBlock
from models.parts.frame_merging import Groups, merged_across
from models.parts.merging import unmerge
from models.stoa.blocks import attention, heads_of, read, seen_of


class Beside(NamedTuple):
    """Object tokens (B, G, O, D) beside groups of frames, and which of them are there, bool (B, G, O)."""

    tokens: Tensor
    is_there: Tensor

    @classmethod
    def of_groups(cls, tokens_BTOD: Tensor, is_there_BTO: Tensor, num_groups: int) -> "Beside":
        """The objects of frames, for groups of as many neighbours."""
        parts = (part.unflatten(1, (num_groups, -1)).flatten(2, 3) for part in (tokens_BTOD, is_there_BTO))
        return cls(*parts)


def through_block(
    block: ClipBlock,
    step: GroupStep,
    groups: Groups,
    beside: Beside | None,
    reads_all: bool = True,
    steps: list[AggregationStep] | None = None,
) -> Groups:
    """The groups after a block, which joins and merges them as its step says.

    Proportional attention: log(size) is added to the scores of each key. If not all is read, the patches come back as
    they went into attention: nothing needs them any more.
    """
    groups = merged_across(groups, step.joined, step.across, steps=steps)
    shape, num_class = groups.size.shape[:2], groups.cls.shape[2]
    own = torch.cat([groups.cls, groups.patches], dim=2).flatten(0, 1)
    seen = own if beside is None else torch.cat([own, beside.tokens.to(own.dtype).flatten(0, 1)], dim=1)
    bias = _key_bias(groups, beside, own.dtype)
    if not reads_all:
        cls = read(block, own[:, :num_class], seen_of(block, seen), bias)
        return groups._replace(cls=cls.unflatten(0, shape))

    # Attention, of which objects are keys alone.
    parts = F.linear(block.ln_1(seen), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
    queries, keys, values = (heads_of(part, block.attn.heads) for part in parts)
    context = attention(queries[:, :, : own.shape[1]], KeysValues(keys, values), bias)
    own = (own + block.attn.out_proj(context.transpose(1, 2).flatten(2))).unflatten(0, shape)

    # Patches of a group merge by their keys.
    mean_keys = keys.detach().mean(dim=1)[:, num_class : own.shape[2]].unflatten(0, shape)
    groups = groups._replace(cls=own[:, :, :num_class], patches=own[:, :, num_class:])
    groups = groups.merged(mean_keys, step.within, steps)

    own = torch.cat([groups.cls, groups.patches], dim=2)
    own = own + block.mlp(block.ln_2(own))
    return groups._replace(cls=own[:, :, :num_class], patches=own[:, :, num_class:])


def put_back(groups: Groups) -> Tensor:
    """The tokens of all frames in their places, (B, T, 1 + L, D): every patch is the token that holds it."""
    assert groups.origins is not None
    patches = unmerge(groups.patches.flatten(1, 2), groups.origins)
    return torch.cat([groups.cls.flatten(1, 2).unsqueeze(2), patches], dim=2)


def _key_bias(groups: Groups, beside: Beside | None, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of keys, (B G, 1, 1, C + N + O)."""
    bias = groups.log_size()
    if beside is not None:
        absent = torch.zeros_like(beside.is_there, dtype=bias.dtype).masked_fill(~beside.is_there, -torch.inf)
        bias = torch.cat([bias, absent], dim=2)
    return bias.detach().to(dtype).flatten(0, 1)[:, None, None]
