"""TempMe's schedule (ICLR 2025): frames are joined to longer and longer groups, and tokens of each group merge.

Counts follow from sizes alone, so the whole table is known before a model is built.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from configs.aggregation import AggregationConfig
from configs.schedule import blocks_from_amount, blocks_from_keep, capacity, check_capacity


class GroupStep(NamedTuple):
    """What one block does to the groups of frames that reach it; a group is a single frame at first.

    Attributes:
        joined: how many neighbouring groups become one before the block; 1: none.
        across: patches of each joined group that merge before its attention.
        within: patches of each group that merge between attention and MLP.
        groups, class_tokens, patches: what is left after the block: groups, and tokens of each.
    """

    joined: int
    across: int
    within: int
    groups: int
    class_tokens: int
    patches: int

    @property
    def seen(self) -> int:
        """The tokens of a group that its attention sees."""
        return self.class_tokens + self.patches + self.within


def group_steps(
    num_frames: int,
    num_patches: int,
    amounts: Sequence[int],
    joins: Sequence[int],
    across: float,
    within: float,
) -> tuple[GroupStep, ...]:
    """The step of every block.

    Args:
        amounts: for each block before the first join, how many patches of each frame merge.
        joins: for each block, how many groups become one before it; 1: none.
        across, within: from the first join on, the share of a group's tokens (class tokens included, rounded down) that
            merges before attention, in blocks that join, and after it, in all. At most half of its patches merge at
            once.

    ValueError if the joins do not divide the frames, or a frame cannot lose what it is to lose.
    """
    steps: list[GroupStep] = []
    groups, class_tokens, patches = num_frames, 1, num_patches
    has_joined = False
    for block, (amount, joined) in enumerate(zip(amounts, joins, strict=True)):
        if groups % joined:
            raise ValueError(
                f"aggregation.join_frames: block {block} is to join {joined} of {groups} groups of frames at a time, "
                f"which does not divide them; {num_frames} frames have to be a multiple of all that is joined"
            )
        has_joined |= joined > 1
        groups, class_tokens, patches = groups // joined, class_tokens * joined, patches * joined

        before = 0
        if joined > 1:
            before = min(int((class_tokens + patches) * across), capacity(patches, 0))
            patches -= before

        wanted = int((class_tokens + patches) * within) if has_joined else amount
        if not has_joined:
            check_capacity((wanted,), patches, 0, "aggregation.patches_per_block", "patches", block)
        after = min(wanted, capacity(patches, 0))
        patches -= after
        steps.append(GroupStep(joined, before, after, groups, class_tokens, patches))
    return tuple(steps)


def steps_of(
    settings: AggregationConfig, num_frames: int, num_patches: int, depth: int, first_joint: int
) -> tuple[GroupStep, ...]:
    """The schedule that a configuration asks for, of a tower that sees each frame alone.

    Args:
        first_joint: the block from which on tokens see all frames. By then all of them are one group; where no
            `join_blocks` are set, it joins them. Of the last block class tokens alone are read, so nothing merges in
            it after its attention.

    A ValueError that begins with the key refuses what cannot be.
    """
    joins = _joins(settings, num_frames, depth, first_joint)
    first_join = next((block for block, joined in enumerate(joins) if joined > 1), depth)

    if settings.keep is not None:
        return _steps_from_keep(settings.keep, num_frames, num_patches, joins, first_join)

    amounts = blocks_from_amount(settings.patches_per_block, depth, "aggregation.patches_per_block")
    if not isinstance(settings.patches_per_block, int) and any(amounts[first_join:]):
        raise ValueError(
            f"aggregation.patches_per_block: frames are joined before block {first_join}, after which shares say what "
            f"leaves; end the list in {depth - first_join} zeros"
        )
    steps = group_steps(num_frames, num_patches, amounts, joins, settings.across_frames, settings.within_groups)
    return (*steps[:-1], _without_last(steps[-1]))


def _joins(settings: AggregationConfig, num_frames: int, depth: int, first_joint: int) -> list[int]:
    """How many groups become one before each block."""
    joins = [1] * depth
    if not settings.join_blocks:
        joins[first_joint] = num_frames
        return joins

    for block, joined in zip(settings.join_blocks, settings.join_frames, strict=True):
        if not 0 <= block <= first_joint:
            raise ValueError(
                f"aggregation.join_blocks: {block} is not from 0 to {first_joint}, the first block that sees all frames"
            )
        joins[block] = joined
    if math.prod(joins) != num_frames:
        raise ValueError(
            f"aggregation.join_frames: {list(settings.join_frames)} join {math.prod(joins)} frames, not {num_frames}, "
            "which have to be one group when all are seen together; their product is the number of frames"
        )
    return joins


def _steps_from_keep(
    share: float, num_frames: int, num_patches: int, joins: Sequence[int], first_join: int
) -> tuple[GroupStep, ...]:
    """Keep the root of the share in the blocks of single frames, and of that the root where frames are joined.

    With several joins each keeps the same share. All leaves before attention there.
    """
    num_joins = sum(joined > 1 for joined in joins)
    before_join = min(first_join, len(joins) - 1)
    in_frames = share if not num_joins else 1.0 if not before_join else share**0.5
    at_join = 1.0 if not num_joins else (share / in_frames) ** (1 / num_joins)

    amounts = [0] * len(joins)
    if before_join:
        amounts[:before_join] = blocks_from_keep(in_frames, num_patches, 0, before_join, "aggregation.keep")

    steps = []
    groups, class_tokens, patches, goal = num_frames, 1, num_patches, in_frames
    for block, (amount, joined) in enumerate(zip(amounts, joins, strict=True)):
        groups, class_tokens, patches = groups // joined, class_tokens * joined, patches * joined
        before = 0
        if joined > 1:
            goal *= at_join
            before = patches - max(1, round(goal * class_tokens * num_patches))
            check_capacity((before,), patches, 0, "aggregation.keep", "patches", block)
        patches -= before + amount
        steps.append(GroupStep(joined, before, amount, groups, class_tokens, patches))
    return tuple(steps)


def _without_last(step: GroupStep) -> GroupStep:
    return step._replace(within=0, patches=step.patches + step.within)
