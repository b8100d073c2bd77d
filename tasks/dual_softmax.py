"""Dual softmax: scores that favour a candidate which no other query claims, an option of evaluation."""

from collections.abc import Callable
from functools import partial

from numpy.typing import NDArray

from tasks.metrics.retrieval import Direction
from tasks.shares import shared_out

SUFFIX = "_dual_softmax"
"""The end of the names of metrics that are of these scores."""
LOOKS_AT_ALL = f"metrics that end in {SUFFIX} look at all queries at once, which no search for a single text can"

WITHOUT_IT = "; the submission holds the plain scores, since dual softmax looks at all queries at once"


def dual_softmax(directions: tuple[Direction, Direction], scale: float) -> list[Callable[[slice], NDArray]]:
    """The scores of both directions, a tile of queries at a time; `scale` is 1 / temperature."""
    log_totals = [shared_out(direction.tiles(), partial(direction.log_totals, scale=scale)) for direction in directions]

    # The candidates of one direction are the queries of the other, so its sums are over all queries.
    return [
        partial(direction.dual_softmax, log_totals_N=totals, scale=scale)
        for direction, totals in zip(directions, reversed(log_totals), strict=True)
    ]
