from dataclasses import replace
from typing import Any

import pytest

from benchmarks.reducers.report import described
from benchmarks.reducers.schedules import Matched, match, without_defaults
from benchmarks.reducers.settings import Reducer
from configs.divided import balanced_patches
from configs.models.base import ModelConfig
from configs.models.tvts import TvtsConfig
from configs.models.umt import UMTConfig
from configs.reducers import REDUCER_SETTINGS
from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.systems import count

MODEL, VIDEO = TestaConfig(depth=2, width=192, heads=3), VideoConfig(num_frames=12, image_size=48)
"""12 frames of 9 patches: few schedules to count."""
LIMITS = {"num_frames": 12, "image_size": 3, "frames": 3, "patches": 3, "tokens": 36}
"""How many can leave in each of two blocks: half of what is left, one frame being protected."""


def costs_of_all(reducer: Reducer) -> dict[int, float]:
    """The cost of every constant schedule, counted one by one."""
    model, found = replace(MODEL, attention=reducer.attention or "divided"), {}
    for amount in range(LIMITS.get(reducer.matched_by, LIMITS["frames"]) + 1):
        aggregation, video = reducer.aggregation, VIDEO
        if reducer.matched_by == "num_frames":
            if amount == VIDEO.num_frames:
                continue
            video = replace(VIDEO, num_frames=VIDEO.num_frames - amount)
        elif reducer.matched_by == "image_size":
            if amount == 3:  # of patches of 16 pixels
                continue
            video = replace(VIDEO, image_size=48 - 16 * amount)
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
    if matched_by == "image_size":
        return (VIDEO.image_size - matched.video.image_size) // 16
    axis = "frames" if matched_by == "both" else matched_by
    amount = getattr(matched.aggregation, f"{axis}_per_block")
    assert isinstance(amount, int)
    return amount


@pytest.mark.parametrize(
    "reducer",
    [
        Reducer(name="fewer", matched_by="num_frames"),
        Reducer(name="smaller", matched_by="image_size"),
        Reducer(name="both", matched_by="both", aggregation=AggregationConfig(reducer="geometry")),
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
    assert [balanced_patches(frames, 64, 16) for frames in (0, 1, 2, 3, 6, 7, 12, 15)] == [0, 0, 0, 1, 1, 2, 3, 4]


UMT = UMTConfig(depth=3, width=192, heads=3, pooling="all")
SYSTEMS: dict[str, ModelConfig] = {
    "testa": MODEL,
    "testa joint": replace(MODEL, attention="joint"),
    "umt": UMT,
    "tvts": TvtsConfig(depth=2, width=192, heads=3),
}


@pytest.mark.parametrize("model", SYSTEMS.values(), ids=list(SYSTEMS))
def test_a_system_says_which_reducers_it_can_do_and_matches_each(model: ModelConfig) -> None:
    """Those that it names take a schedule of 0.7 of its cost, as near as one token more or less can be; others none."""
    whole = count(model, VIDEO, AggregationConfig()).gmacs
    for name in REDUCER_SETTINGS:
        aggregation = AggregationConfig(reducer=name)  # type: ignore[arg-type]
        if name not in model.reducers:
            with pytest.raises(ValueError, match=r"aggregation\.reducer"):
                model.check(VIDEO, aggregation)
            with pytest.raises(ValueError, match=f"cannot shorten anything by reducer '{name}'"):
                match(Reducer(name="other", aggregation=aggregation), model, VIDEO, 0.7 * whole)
        elif name != "none":
            matched = match(Reducer(name="own", aggregation=aggregation), model, VIDEO, 0.7 * whole)
            assert matched.cost == count(model, VIDEO, matched.aggregation)
            assert 0.5 * whole < matched.cost.gmacs < 0.9 * whole


def test_schedules_of_first_blocks_of_a_share_and_given_ones() -> None:
    saliency: Any = AggregationConfig(reducer="saliency")
    whole = count(UMT, VIDEO, AggregationConfig()).gmacs

    first = match(Reducer(name="first", blocks=2, aggregation=saliency), UMT, VIDEO, 0.6 * whole)
    leaving = first.aggregation.tokens_per_block
    assert isinstance(leaving, tuple) and leaving[0] == leaving[1] > 0 == leaving[2]
    assert f"aggregation.tokens_per_block=[{leaving[0]},{leaving[0]},0]" in first.overrides
    assert described(first) == f"{leaving[0]}, {leaving[0]}, 0 tokens a block"

    kept = match(Reducer(name="kept", matched_by="keep", aggregation=saliency), UMT, VIDEO, 0.7 * whole)
    assert kept.cost.gmacs == pytest.approx(0.7 * whole, rel=0.02)
    assert f"aggregation.keep={kept.aggregation.keep}" in kept.overrides
    assert not any("per_block" in override for override in kept.overrides)

    # The same list, whatever it costs.
    for name in ("tome", "saliency"):
        own: Any = AggregationConfig(reducer=name, tokens_per_block=leaving)  # type: ignore[arg-type]
        given = match(Reducer(name=name, matched_by="given", aggregation=own), UMT, VIDEO, 0.1 * whole)
        assert given.aggregation is own and given.cost == count(UMT, VIDEO, own)


@pytest.mark.parametrize("model", [SYSTEMS["testa joint"], UMT], ids=["testa", "umt"])
def test_run_length_and_merging_after_it_share_one_knob(model: ModelConfig) -> None:
    """No other share is nearer (of TESTA, whose costs take long to count, those beside it); each keeps its root."""
    given = AggregationConfig(reducer="run_length", inside="tome")
    reducer = Reducer(name="both", matched_by="keep", aggregation=given)
    half = 0.5 * count(model, VIDEO, AggregationConfig()).gmacs
    matched = match(reducer, model, VIDEO, half)

    settings = []
    for thousandths in range(100, 1000):
        keep = round((thousandths / 1000) ** 0.5, 3)
        held, amounts = round(keep * 108), []
        if held < 9:
            continue
        left = max(0, held - round(thousandths / 1000 * 108))
        for _ in range(3 if model is UMT else 2):
            amounts.append(min(left, (held - 1) // 2))
            left, held = left - amounts[-1], held - amounts[-1]
        if not left:
            settings.append(replace(given, keep=keep, tokens_per_block=tuple(amounts)))
    settings = list(dict.fromkeys(settings))
    place = settings.index(matched.aggregation)
    others = settings if model is UMT else settings[place - 2 : place + 3]
    distances = [abs(count(model, VIDEO, own).gmacs - half) for own in others]
    assert abs(matched.cost.gmacs - half) == min(distances) and len(distances) >= 5

    amounts = matched.aggregation.tokens_per_block
    assert isinstance(amounts, tuple) and amounts[0] > 0
    written = ",".join(map(str, amounts))
    attention = () if model is UMT else ("model.attention=joint",)
    assert matched.overrides == (
        *attention, "video.num_frames=12", "video.image_size=48", "aggregation.reducer=run_length",
        "aggregation.threshold=0.1", f"aggregation.keep={matched.aggregation.keep}", "aggregation.kept_by=change",
        "aggregation.weigh_lengths=False", "aggregation.train_keep=null", "aggregation.inside=tome",
        f"aggregation.tokens_per_block=[{written}]", "aggregation.merge_weight=size",
        "aggregation.proportional_attention=False", "aggregation.weighted_pooling=False",
    )  # fmt: skip
    said = f"{matched.aggregation.keep:g} of the tokens kept, then {written.replace(',', ', ')} tokens a block"
    assert described(matched) == said


def test_rows_without_merging_inside_say_so() -> None:
    """What they are evaluated on may have merged inside; that is the default, so earlier comparisons resume."""
    given = AggregationConfig(reducer="run_length", weigh_lengths=True)
    for keep in (0.25, None):
        kept = [f"aggregation.keep={keep}"] if keep else []
        row = Matched("row", UMT, VIDEO, replace(given, keep=keep), count(UMT, VIDEO, AggregationConfig()))
        assert row.overrides == (
            "video.num_frames=12", "video.image_size=48", "aggregation.reducer=run_length", "aggregation.threshold=0.1",
            *kept, "aggregation.kept_by=change", "aggregation.weigh_lengths=True", "aggregation.train_keep=null",
            "aggregation.inside=none", "aggregation.proportional_attention=False", "aggregation.weighted_pooling=False",
        )  # fmt: skip
        assert not any("inside" in word for word in without_defaults(row.overrides))


def test_merging_inside_has_no_other_knob() -> None:
    inside: Any = AggregationConfig(reducer="run_length", inside="tome")
    for knob in (None, "early", "tokens"):
        with pytest.raises(ValueError, match=f"matched_by: {knob or 'left out'} does not go with inside"):
            Reducer(name="both", matched_by=knob, aggregation=inside)  # type: ignore[arg-type]
    own = replace(inside, keep=0.5, tokens_per_block=(9, 3, 0))
    given = match(Reducer(name="given", matched_by="given", aggregation=own), UMT, VIDEO, 1.0)
    assert given.cost == count(UMT, VIDEO, own)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"matched_by": "both"},
            "umt cannot shorten frames and patches by reducer 'tome'; its encoder takes no reducer",
        ),
        ({"matched_by": "patches"}, "umt cannot shorten patches by reducer 'tome'"),
        ({"attention": "joint"}, "umt has no choice of attention"),
        ({"blocks": 9}, "blocks: 9 is not from 1 to the 3 blocks"),
    ],
)
def test_what_an_encoder_cannot_do_is_refused(settings: dict[str, Any], said: str) -> None:
    reducer = Reducer(name="tome", aggregation=AggregationConfig(reducer="tome"), **settings)
    with pytest.raises(ValueError, match=said):
        match(reducer, UMT, VIDEO, 1.0)
