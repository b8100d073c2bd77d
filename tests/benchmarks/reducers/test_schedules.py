from dataclasses import replace

import pytest

from benchmarks.reducers.schedules import Matched, balanced_patches, match
from benchmarks.reducers.settings import Reducer
from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.testa.cost import count

MODEL, VIDEO = TestaConfig(depth=2, width=192, heads=3), VideoConfig(num_frames=12, image_size=48)
"""12 frames of 9 patches: few schedules to count."""
LIMITS = {"num_frames": 12, "frames": 3, "patches": 3, "tokens": 36}
"""How many can leave in each of two blocks: half of what is left, one frame being protected."""


def costs_of_all(reducer: Reducer) -> dict[int, float]:
    """The cost of every constant schedule, counted one by one."""
    model, found = replace(MODEL, attention=reducer.attention), {}
    for amount in range(LIMITS.get(reducer.matched_by, LIMITS["frames"]) + 1):
        aggregation, video = reducer.aggregation, VIDEO
        if reducer.matched_by == "num_frames":
            if amount == VIDEO.num_frames:
                continue
            video = replace(VIDEO, num_frames=VIDEO.num_frames - amount)
        elif reducer.matched_by == "both":
            patches = min(range(4), key=lambda left: (abs(9 * (12 - 2 * amount) - 12 * (9 - 2 * left)), left))
            aggregation = replace(aggregation, frames_per_block=amount, patches_per_block=patches)
        else:
            aggregation = replace(aggregation, **{f"{reducer.matched_by}_per_block": amount})
        found[amount] = count(model, video, aggregation).gmacs
    return found


def amount_of(matched: Matched, matched_by: str) -> int:
    if matched_by == "num_frames":
        return VIDEO.num_frames - matched.video.num_frames
    axis = "frames" if matched_by == "both" else matched_by
    amount = getattr(matched.aggregation, f"{axis}_per_block")
    assert isinstance(amount, int)
    return amount


@pytest.mark.parametrize(
    "reducer",
    [
        Reducer(name="fewer", matched_by="num_frames"),
        Reducer(name="both", aggregation=AggregationConfig(reducer="geometry")),
        Reducer(name="frames", matched_by="frames", aggregation=AggregationConfig(reducer="prune")),
        Reducer(name="patches", matched_by="patches", aggregation=AggregationConfig(reducer="importance")),
    ],
    ids=lambda reducer: reducer.matched_by,
)
def test_no_schedule_is_nearer_than_the_matched_one(reducer: Reducer) -> None:
    costs = costs_of_all(reducer)
    assert list(costs.values()) == sorted(costs.values(), reverse=True) and len(set(costs.values())) == len(costs)
    low, high = min(costs.values()), max(costs.values())
    for share in (-0.2, 0.0, 0.3, 0.55, 0.8, 1.2):  # what cannot be had ends at the cheapest, or at no merging
        target = low + share * (high - low)
        best = min(costs, key=lambda amount: abs(costs[amount] - target))
        matched = match(reducer, MODEL, VIDEO, target)
        assert (amount_of(matched, reducer.matched_by), matched.cost.gmacs) == (best, costs[best])


def test_joint_tokens_are_matched_too() -> None:
    reducer = Reducer(
        name="joint", matched_by="tokens", attention="joint", aggregation=AggregationConfig(reducer="tome")
    )
    gmacs = 0.8 * count(replace(MODEL, attention="joint"), VIDEO, AggregationConfig()).gmacs
    matched = match(reducer, MODEL, VIDEO, gmacs)
    here = amount_of(matched, "tokens")
    for beside in (here - 1, here + 1):
        other = count(matched.model, VIDEO, replace(matched.aggregation, tokens_per_block=beside)).gmacs
        assert abs(matched.cost.gmacs - gmacs) <= abs(other - gmacs)


def test_patches_leave_in_proportion_to_frames() -> None:
    model, video = TestaConfig(depth=3, patch_size=8), VideoConfig(num_frames=64, image_size=32)
    assert [balanced_patches(frames, model, video) for frames in (0, 1, 2, 3, 6, 7, 12, 15)] == [0, 0, 0, 1, 1, 2, 3, 4]
