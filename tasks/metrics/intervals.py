"""Confidence intervals by bootstrap: of the metrics of one result, and of the difference between two results.

Videos are drawn again with replacement, each with all its texts or questions, since those of one video are not
independent. The candidates of a query stay the same ones: an interval says how much the choice of queries matters.

Shapes: N items, V videos, R replicates. A weight is how often an item was drawn in a replicate.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.ranks import GEOMETRIC, RECALLS
from tasks.metrics.retrieval import AVERAGED_RECALLS

LEVEL = 95.0
"""Percent of the replicates that an interval holds."""
REPLICATES = 1000
AT_ONCE = 50
"""Replicates drawn at a time, which bounds memory."""


class Outcomes(NamedTuple):
    """What each item of an evaluated set contributed to the metrics.

    Attributes:
        statistic: how metrics follow from the values, a key of `STATISTICS`.
        items: a unique name for each item (N,), by which two results are paired.
        videos: the video of each item (N,).
        values: (N,) for each metric. Of ranks, the name has `{}` in place of `r1` and the like: `t2v_{}_cosine`. NaN
            where an item does not count.
        classes: the true class of each item (N,), for the mean over classes.
    """

    statistic: str
    items: Sequence[str]
    videos: Sequence[str]
    values: Mapping[str, NDArray]
    classes: Sequence[str] | None = None


Replicated = dict[str, NDArray]
"""A metric's name -> its values (R,)."""


def replicated(outcomes: Outcomes, weights_RN: NDArray) -> Replicated:
    """All metrics of a set in each replicate; with weights of 1, the metrics themselves."""
    found: Replicated = {}
    for name, values_N in outcomes.values.items():
        found |= STATISTICS[outcomes.statistic](name, values_N, weights_RN, outcomes)
    return found


def metric_intervals(
    sets: Mapping[str, Outcomes], replicates: int = REPLICATES, seed: int = 0
) -> dict[str, list[float]]:
    """The lower and upper end of each metric's interval. The order of the items makes no difference."""
    drawn = [_replicated_sets(sets, weights) for weights in _draws(sets, replicates, np.random.default_rng(seed))]
    return {name: _interval(np.concatenate([part[name] for part in drawn])) for name in (drawn[0] if drawn else {})}


class Difference(NamedTuple):
    """A metric of two results A and B, and the interval of B - A."""

    a: float
    b: float
    low: float
    high: float

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


Pair = tuple[Mapping[str, Outcomes], Mapping[str, Outcomes]]
"""Outcomes of A and of B with the same items in the same order."""


def paired_differences(pairs: Sequence[Pair], replicates: int = REPLICATES, seed: int = 0) -> dict[str, Difference]:
    """Compare A and B, drawing the same videos for both; of several pairs (seeds), pairs are drawn first.

    A metric's value is the mean over the pairs.
    """
    rng = np.random.default_rng(seed)
    differences = []
    for sets_a, sets_b in pairs:
        # Each pair gets draws of its own: its videos, or at least its weights, are its own.
        own = [
            _minus(_replicated_sets(sets_b, weights), _replicated_sets(sets_a, weights))
            for weights in _draws(sets_a, replicates, rng)
        ]
        differences.append({name: np.concatenate([part[name] for part in own]) for name in own[0]})

    # A replicate's pairs are drawn with replacement, too; of one pair there is nothing to draw.
    chosen_RP = rng.integers(len(pairs), size=(replicates, len(pairs)))
    rows = np.arange(replicates)[:, None]

    measured = [(_measured(sets_a), _measured(sets_b)) for sets_a, sets_b in pairs]
    found = {}
    for name in differences[0]:
        drawn = np.stack([of_pair[name] for of_pair in differences], axis=1)[rows, chosen_RP].mean(axis=1)
        a, b = (float(np.mean([of_pair[side][name] for of_pair in measured])) for side in (0, 1))
        found[name] = Difference(a, b, *_interval(drawn))
    return found


def _measured(sets: Mapping[str, Outcomes]) -> dict[str, float]:
    """The metrics as they were measured: each item once."""
    found: dict[str, float] = {}
    for outcomes in sets.values():
        values = replicated(outcomes, np.ones((1, len(outcomes.items))))
        found |= {name: float(value[0]) for name, value in values.items()}
    return found


def _draws(sets: Mapping[str, Outcomes], replicates: int, rng: np.random.Generator) -> Iterator[NDArray]:
    """Yield how often each video was drawn, (r, V), for `AT_ONCE` replicates at a time; videos are in order of name."""
    num_videos = len({video for outcomes in sets.values() for video in outcomes.videos})
    for first in range(0, replicates if num_videos else 0, AT_ONCE):
        size = min(AT_ONCE, replicates - first)
        yield rng.multinomial(num_videos, np.full(num_videos, 1 / num_videos), size=size).astype(np.float64)


def _replicated_sets(sets: Mapping[str, Outcomes], weights_RV: NDArray) -> Replicated:
    """All metrics of all sets, which share the drawn videos."""
    videos = sorted({video for outcomes in sets.values() for video in outcomes.videos})
    column = {video: number for number, video in enumerate(videos)}
    found: Replicated = {}
    for outcomes in sets.values():
        found |= replicated(outcomes, weights_RV[:, [column[video] for video in outcomes.videos]])
    return found


def _minus(b: Replicated, a: Replicated) -> Replicated:
    return {name: b[name] - a[name] for name in a if name in b}


def _interval(values_R: NDArray) -> list[float]:
    outside = (100 - LEVEL) / 200
    known = values_R[~np.isnan(values_R)]
    if not len(known):
        return [float("nan"), float("nan")]
    return [float(end) for end in np.quantile(known, [outside, 1 - outside])]


def _mean(name: str, values_N: NDArray, weights_RN: NDArray, outcomes: Outcomes) -> Replicated:
    return {name: _weighted_mean(values_N, weights_RN)}


def _percent(name: str, values_N: NDArray, weights_RN: NDArray, outcomes: Outcomes) -> Replicated:
    return {name: 100 * _weighted_mean(values_N, weights_RN)}


def _mean_per_class(name: str, values_N: NDArray, weights_RN: NDArray, outcomes: Outcomes) -> Replicated:
    """The percentage of each class, averaged over the classes that were drawn."""
    assert outcomes.classes is not None
    names, class_N = np.unique(np.asarray(outcomes.classes), return_inverse=True)
    is_of_NC = class_N[:, None] == np.arange(len(names))
    counts_RC = weights_RN @ is_of_NC
    right_RC = weights_RN @ (is_of_NC * values_N[:, None])
    with np.errstate(invalid="ignore"):
        return {name: 100 * np.nanmean(right_RC / counts_RC, axis=1)}


def _rank_statistics(template: str, ranks_N: NDArray, weights_RN: NDArray, outcomes: Outcomes) -> Replicated:
    """What `recalls` computes from ranks, for weighted ranks."""
    within_NK = np.stack([ranks_N == 1 if most == 1 else ranks_N < most + 1 for most in RECALLS], axis=1)
    total_R = weights_RN.sum(axis=1)
    with np.errstate(invalid="ignore"):  # a replicate may hold no item of a small set
        shares_RK = 100 * (weights_RN @ within_NK) / total_R[:, None]
    found = {f"r{most}": shares_RK[:, place] for place, most in enumerate(RECALLS)}

    found["median_rank"] = _weighted_median(ranks_N, weights_RN)
    found["mean_rank"] = _weighted_mean(ranks_N, weights_RN)
    product = np.prod([found[f"r{most}"] for most in GEOMETRIC], axis=0)
    found["geometric_mean"] = product ** (1 / len(GEOMETRIC))
    found["mean_recall"] = np.mean([found[name] for name in AVERAGED_RECALLS], axis=0)
    return {template.format(name): values for name, values in found.items()}


def _weighted_mean(values_N: NDArray, weights_RN: NDArray) -> NDArray:
    counted = ~np.isnan(values_N)
    with np.errstate(invalid="ignore"):
        return weights_RN[:, counted] @ values_N[counted] / weights_RN[:, counted].sum(axis=1)


def _weighted_median(values_N: NDArray, weights_RN: NDArray) -> NDArray:
    """The median (R,) of values repeated by their weights; of an even count, the mean of the middle two.

    NaN where all weights are 0.
    """
    order = np.argsort(values_N, kind="stable")
    up_to_RN = weights_RN[:, order].cumsum(axis=1)
    total_R = up_to_RN[:, -1]

    # The value at a position is the first whose cumulative weight exceeds it.
    middle = [(up_to_RN <= position[:, None]).sum(axis=1) for position in ((total_R - 1) // 2, total_R // 2)]
    places_2R = np.minimum(np.stack(middle), len(values_N) - 1)
    return np.where(total_R > 0, values_N[order][places_2R].mean(axis=0), np.nan)


STATISTICS: dict[str, Callable[[str, NDArray, NDArray, Outcomes], Replicated]] = {
    "ranks": _rank_statistics,
    "percent": _percent,
    "mean": _mean,
    "mean_per_class": _mean_per_class,
}
