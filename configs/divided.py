"""Aggregation schedules for encoders with divided attention: frames leave, and then patches of each frame."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from configs.aggregation import AggregationConfig
from configs.reducers import Axis, why_not
from configs.run_length import check_run_length, refuse_inside
from configs.schedule import (
    blocks_from_amount,
    blocks_from_keep,
    check_capacity,
    in_first_blocks,
    keep_per_axis,
    share_without,
)

REDUCERS: dict[str, tuple[Axis, ...]] = {
    "none": (),
    "geometry": ("frames", "patches"),
    "importance": ("frames", "patches"),
    "prune": ("frames", "patches"),
    "saliency": ("patches",),
    "run_length": ("tokens",),
}
"""The reducers for divided attention, and the axes that each can shorten."""


def divided_schedules(
    settings: AggregationConfig, depth: int, num_frames: int, num_patches: int
) -> dict[str, tuple[int, ...]]:
    """How many `frames` and `patches` leave in each block of an encoder; 0 where nothing does.

    A ValueError that begins with the key refuses a reducer of joint attention, an amount for an axis that the reducer
    does not touch, and an amount that the axis cannot hold.
    """
    if settings.reducer not in REDUCERS:
        raise ValueError(
            f"aggregation.reducer: {settings.reducer!r} does not go with divided attention, which takes "
            f"{', '.join(REDUCERS)}{why_not(settings.reducer, 'divided')}"
        )
    refuse_inside(settings)
    if settings.tokens_per_block != 0:
        raise ValueError("aggregation.tokens_per_block: has no effect with divided attention; leave it out")

    if settings.reducer == "run_length":
        # All that leaves does so before the first block.
        check_run_length(settings, num_frames)
        return {"frames": (0,) * depth, "patches": (0,) * depth}

    # Axis, what it holds at first, and how many of them are never counted as free to leave.
    held = {"frames": (1 if settings.reducer == "saliency" else num_frames, 1), "patches": (num_patches, 0)}
    if settings.keep is not None:
        # A single frame cannot merge in time: then space alone keeps the share.
        merging = sum(count > 1 for count, _ in held.values())
        if not merging:
            raise ValueError("aggregation.keep: one frame of one patch has nothing to merge")
        share = keep_per_axis(settings.keep, merging)
        return {
            axis: blocks_from_keep(share, count, protected, depth, "aggregation.keep") if count > 1 else (0,) * depth
            for axis, (count, protected) in held.items()
        }

    amounts = {"frames": settings.frames_per_block, "patches": settings.patches_per_block}
    schedules = {}
    for axis, (count, protected) in held.items():
        name = f"aggregation.{axis}_per_block"
        schedules[axis] = blocks_from_amount(amounts[axis], depth, name)
        check_capacity(schedules[axis], count, protected, name, axis)
    return schedules


def at_price(
    settings: AggregationConfig,
    axes: Sequence[Axis],
    amount: int,
    num_frames: int,
    num_patches: int,
    depth: int,
    blocks: int | None,
) -> AggregationConfig:
    """The reducer with `amount` leaving each axis in every block, or in the first `blocks` alone.

    If both frames and patches leave, `amount` counts frames, and patches leave in proportion.
    """
    if settings.reducer == "run_length":
        return replace(settings, keep=share_without(amount, num_frames * num_patches, blocks))
    amounts = dict.fromkeys(axes, amount)
    if "frames" in axes and "patches" in axes:
        amounts["patches"] = balanced_patches(amount, num_frames, num_patches)
    schedule: dict[str, Any] = {
        f"{axis}_per_block": in_first_blocks(leaving, blocks, depth) for axis, leaving in amounts.items()
    }
    return replace(settings, **schedule)


def balanced_patches(frames: int, num_frames: int, num_patches: int) -> int:
    """How many patches leave a block along with `frames`, so that both axes lose the most similar shares.

    Half a patch is rounded down: less merging.
    """
    return math.ceil(frames * num_patches / num_frames - 0.5)
