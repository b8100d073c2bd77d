"""TempMe's schedule (ICLR 2025): frames are joined to longer and longer groups, and tokens of each group merge.

Counts follow from sizes alone, so the whole table is known when a model is built.
"""

from collections.abc import Sequence
from typing import NamedTuple

from configs.schedule import capacity, check_capacity


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
