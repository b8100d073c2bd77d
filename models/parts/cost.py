"""The cost of encoding one video, counted, not measured."""

from typing import NamedTuple

from configs.aggregation import AggregationConfig


class Cost(NamedTuple):
    """Giga multiply-accumulates of one video, as the paper counts and as executed, and what is left of the video.

    What is left is counted in frames and patches (None for joint) and in tokens. `gmacs_without_matching` omits the
    similarities of tokens, for a system whose authors count this way.
    """

    gmacs: float
    executed_gmacs: float
    frames: int | None
    patches: int | None
    tokens: int
    gmacs_without_matching: float | None = None


def check_countable(aggregation: AggregationConfig) -> None:
    """Refuse a reducer that looks at a video before its cost is known."""
    if aggregation.has_open_rows:
        raise ValueError(
            f"aggregation.reducer: with {aggregation.reducer!r} the content of each video decides what it costs; set "
            "aggregation.keep to the share of patches that stays, to count a video that keeps as much"
        )
