"""Which run-length tokens an encoder takes, and schedules of what merges inside the blocks among those that stay."""

from configs.aggregation import AggregationConfig
from configs.schedule import blocks_from_tokens, check_capacity, check_first_frame, kept_of_share


def check_run_length(settings: AggregationConfig, num_frames: int) -> None:
    """Refuse a share below the first frame, and patches that are drawn blindly without a share."""
    check_first_frame(settings.keep, num_frames)
    if settings.keep is None and settings.kept_by != "change":
        raise ValueError(f"aggregation.kept_by: {settings.kept_by} says which share stays; set aggregation.keep")


def inside_schedule(
    settings: AggregationConfig, depth: int, num_frames: int, num_patches: int
) -> tuple[int | float, ...]:
    """How many tokens of run-length leave in each block, or what share of those that reach it; 0 without `inside`.

    A ValueError that begins with the key refuses what `check_run_length` does, rows that differ in length, and an
    amount that the patches which are left cannot hold, at the smallest budget that training draws.
    """
    check_run_length(settings, num_frames)
    if settings.inside == "none":
        return (0,) * depth  # all that leaves does so before the first block
    if settings.keep is None:
        raise ValueError(
            f"aggregation.inside: {settings.inside} needs videos of the same number of tokens, but with a threshold "
            "each keeps its own; set aggregation.keep, or inside to none"
        )

    name = "aggregation.tokens_per_block"
    schedule = blocks_from_tokens(settings.tokens_per_block, depth, name)
    check_capacity(schedule, kept_of_share(settings.keep, num_frames, num_patches), 0, name, "tokens")
    if settings.train_keep is not None:
        # Numbers of tokens are the same at every budget, so the smallest has to hold them, too.
        fewest = kept_of_share(settings.train_keep[0], num_frames, num_patches)
        at_least = f"{name} with train_keep {list(settings.train_keep)}"
        check_capacity(schedule, fewest, 0, at_least, "tokens")
    return schedule


def refuse_inside(settings: AggregationConfig) -> None:
    """Refuse merging after run-length tokens where attention is divided: patches that are left are no rectangle."""
    if settings.inside != "none":
        raise ValueError(
            f"aggregation.inside: {settings.inside} merges tokens of all frames, which divided attention never sees "
            "together; leave inside out, or take an encoder with joint attention"
        )
