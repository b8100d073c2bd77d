"""The reducers by name: which settings of the `aggregation` section each uses, and what is special about some."""

from typing import Literal

ReducerName = Literal["none", "geometry", "importance", "prune", "tome", "saliency", "run_length", "tempme", "quadtree"]
Axis = Literal["frames", "patches", "tokens"]
"""What a reducer shortens: the frames of a video, the patches of each frame, or the patches of all frames at once."""
InsideName = Literal["none", "tome", "saliency"]
"""What may merge inside the blocks, among the tokens that run-length tokens leave."""
AMOUNTS = ("frames_per_block", "patches_per_block", "tokens_per_block")
OF_SQUARES = ("spatial_threshold", "temporal_threshold", "root_level")
JOINING = ("join_blocks", "join_frames", "across_frames", "within_groups")

# The `aggregation` settings that each reducer uses; all others are refused.
REDUCER_SETTINGS: dict[str, tuple[str, ...]] = {
    "none": (),
    "geometry": ("frames_per_block", "patches_per_block", "keep", "frame_match", "order", "merge_weight"),
    "importance": ("frames_per_block", "patches_per_block", "tokens_per_block", "keep"),
    "prune": ("frames_per_block", "patches_per_block", "tokens_per_block", "keep"),
    "tome": ("tokens_per_block", "keep", "merge_weight"),
    "saliency": ("patches_per_block", "tokens_per_block", "keep"),
    "run_length": (
        *("threshold", "keep", "kept_by", "weigh_lengths", "train_keep"),
        *("inside", "tokens_per_block", "merge_weight"),
    ),
    "tempme": ("patches_per_block", "keep", "join_blocks", "join_frames", "across_frames", "within_groups"),
    "quadtree": ("spatial_threshold", "temporal_threshold", "root_level", "keep"),
}
UNSIZED = ("none", "prune", "run_length")
"""Reducers whose tokens all have size 1, unless lengths are weighed or tokens merge inside the blocks."""
BEFORE_BLOCKS = ("run_length", "quadtree")
"""Reducers that look at a video before the first block, and at nothing later."""
WEIGHED = ("saliency", "tempme")
"""Reducers whose attention always adds log(size)."""
OF_RUN_LENGTH = ("threshold", "kept_by", "weigh_lengths", "train_keep", "inside")
OF_SOME_REDUCERS = ("frame_match", "order", "merge_weight", *OF_RUN_LENGTH, *JOINING, *OF_SQUARES)
OF_INSIDE = {"tokens_per_block": ("tome", "saliency"), "merge_weight": ("tome",)}
"""Of run-length tokens, the settings for what merges inside the blocks, and which ways of merging use them."""
WITHOUT: dict[object, tuple[str, ...]] = {
    "none": (*OF_INSIDE, "proportional_attention", "weighted_pooling"),
    "saliency": ("merge_weight", "proportional_attention"),
}
"""By what `inside` is set to, the settings of something else inside that it has no use for."""
INSTEAD_OF_KEEP = (*AMOUNTS, "threshold", "across_frames", "within_groups", "spatial_threshold", "temporal_threshold")


def why_not(reducer: str, attention: str) -> str:
    """The end of a sentence that refuses a reducer with this attention, where there is more to say than what goes."""
    if reducer == "quadtree" and attention == "divided":
        return ": each frame would be left with squares of its own, and attention over time needs the same in all"
    if reducer != "tempme":
        return ""
    if attention == "joint":
        return (
            ": tempme joins frames, and all are together here from the first block on; reducer 'tome' is what is left"
        )
    if attention == "divided":
        return ": tempme joins frames that were seen alone, and here every block looks over time"
    return ""


def remedy_for_reducer(reducer: str, setting: str) -> str:
    """What to give instead of, or besides, a setting that the reducer does not use."""
    if allowed := REDUCER_SETTINGS[reducer]:
        return f"which takes {', '.join(allowed)}"
    first, *others = (name for name, settings in REDUCER_SETTINGS.items() if setting in settings)
    return f"which leaves all tokens; add aggregation.reducer={first}" + (f" ({', '.join(others)})" if others else "")
