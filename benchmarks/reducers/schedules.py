"""Schedules that cost what is asked for: the nearest that one knob of the reducer can reach."""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from benchmarks.reducers.settings import AXES, Attention, Reducer
from configs.models.base import ModelConfig
from configs.reducers import AMOUNTS, OF_INSIDE, REDUCER_SETTINGS
from configs.schedule import kept_of_share
from configs.schema import AggregationConfig, VideoConfig
from models.parts.cost import Cost
from models.systems import count

KEEP_STEPS = 1000
"""The shares `keep` that are tried are thousandths."""
AROUND = (1.2, 1.0, 0.85, 0.7, 0.5)
"""Of the target in GMACs, the costs at which a schedule's time is measured."""


@dataclass(frozen=True)
class Matched:
    """A reducer with its schedule: what the encoder is built of, and what that costs."""

    name: str
    model: ModelConfig
    video: VideoConfig
    aggregation: AggregationConfig
    cost: Cost

    @property
    def attention(self) -> str | None:
        """The encoder's kind of attention, if it has the choice."""
        return getattr(self.model, "attention", None)

    @property
    def overrides(self) -> tuple[str, ...]:
        """The same as settings of a command; all that its reducer takes, since a recipe may say other things."""
        # `keep` and the numbers per block replace each other. Axes that this encoder does not have are 0 here,
        # and are written too: a recipe's own numbers would survive, and be refused.
        reducer = self.aggregation.reducer
        idle = ["keep"] if self.aggregation.keep is None else list(AMOUNTS)
        if reducer == "run_length" and self.aggregation.inside == "none":
            idle += OF_INSIDE
        elif reducer == "run_length" and self.aggregation.keep is not None:
            idle.remove("tokens_per_block")  # which goes together with `keep`
        names = [name for name in REDUCER_SETTINGS[reducer] if name not in idle]
        if self.aggregation.reducer not in ("none", "prune"):
            names += ["proportional_attention", "weighted_pooling"]

        attention = () if self.attention is None else (f"model.attention={self.attention}",)
        return (
            *attention,
            f"video.num_frames={self.video.num_frames}",
            f"video.image_size={self.video.image_size}",
            *(f"aggregation.{name}={_written(getattr(self.aggregation, name))}" for name in ("reducer", *names)),
        )


def _written(value: Any) -> str:
    """A setting's value as a command line has it."""
    if value is None:
        return "null"
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


@cache
def written_defaults() -> frozenset[str]:
    """A reducer's settings at their defaults, as a command line has them; not which reducer it is."""
    default = AggregationConfig()
    names = [field.name for field in fields(AggregationConfig) if field.name != "reducer"]
    return frozenset(f"aggregation.{name}={_written(getattr(default, name))}" for name in names)


def without_defaults(words: Iterable[str]) -> list[str]:
    """A command's words less a reducer's settings at their defaults.

    A setting that the project did not have when a folder was written is at its default there: what was run and measured
    before counts on.
    """
    defaults = written_defaults()
    return [word for word in words if word not in defaults]


def priced(name: str, model: ModelConfig, video: VideoConfig, aggregation: AggregationConfig) -> Matched:
    """A given schedule with its cost; ValueError if the encoder cannot hold it."""
    model.check(video, aggregation)
    return Matched(name, model, video, aggregation, count(model, video, aggregation))


def match(reducer: Reducer, model: ModelConfig, video: VideoConfig, gmacs: float) -> Matched:
    """The reducer at the schedule whose cost is nearest to `gmacs`; the least merging of those equally near."""
    model = with_attention(model, reducer.attention)
    if reducer.matched_by in ("nothing", "given"):
        return priced(reducer.name, model, video, reducer.aggregation)
    return nearest(schedules_of(reducer, model, video), gmacs)


def around(reducer: Reducer, model: ModelConfig, video: VideoConfig, gmacs: float) -> list[Matched]:
    """Schedules of the reducer from far below `gmacs` to above it, to choose one by its time from; dearest first."""
    model = with_attention(model, reducer.attention)
    at = schedules_of(reducer, model, video)
    found = [nearest(at, share * gmacs) for share in AROUND]
    return list({matched.overrides: matched for matched in found}.values())


def schedules_of(reducer: Reducer, model: ModelConfig, video: VideoConfig) -> Callable[[int], Matched]:
    """The reducer with its knob turned so far: at 0 it takes nothing away; ValueError beyond what it can."""
    name, given, knob = reducer.name, reducer.aggregation, reducer.matched_by
    sizes = smaller_frames(model, video) if knob == "image_size" else []

    @cache
    def at(amount: int) -> Matched:
        # What the encoder is shown.
        if knob == "num_frames":
            return priced(name, model, replace(video, num_frames=video.num_frames - amount), given)
        if knob == "image_size":
            if amount >= len(sizes):
                raise ValueError(f"video.image_size: there is no smaller one than {sizes[-1].image_size}")
            return priced(name, model, sizes[amount], given)

        # What it takes away.
        if knob == "keep":
            share = round(1 - amount / KEEP_STEPS, 3)
            kept = replace(given, keep=share) if given.inside == "none" else in_two_ways(given, share, model, video)
            return priced(name, model, video, kept)
        if knob == "early":
            tokens = video.num_frames * patches_of(model, video)
            return priced(name, model, video, replace(given, tokens_per_block=early(amount, model, tokens)))

        assert knob is None or knob in AXES
        return priced(name, model, video, model.at_price(given, video, reducer.axes(model), amount, reducer.blocks))

    at(0)  # a reducer that the encoder cannot do is refused here
    return at


def in_two_ways(given: AggregationConfig, share: float, model: ModelConfig, video: VideoConfig) -> AggregationConfig:
    """Run-length tokens and what merges inside the blocks, each of which keeps the root of `share` of the patches."""
    frames, patches = video.num_frames, patches_of(model, video)
    keep = round(math.sqrt(share), 3)
    held = kept_of_share(keep, frames, patches)
    leaving = max(0, held - round(share * frames * patches))
    return replace(given, keep=keep, tokens_per_block=early(leaving, model, held))


def patches_of(model: ModelConfig, video: VideoConfig) -> int:
    """How many patches a frame has."""
    return (video.image_size // size_of(model, "patch_size")) ** 2


def size_of(model: ModelConfig, name: str) -> int:
    """A size that the `model` sections of all systems have."""
    size: int = getattr(model, name)
    return size


def early(amount: int, model: ModelConfig, held: int) -> tuple[int, ...]:
    """How many of the joint tokens `held` leave each block so that `amount` leave as early as they can.

    ValueError for too many.
    """
    # Parity sets differ by system: one less than half can leave any of them.
    schedule = []
    for _ in range(size_of(model, "depth")):
        leaving = max(0, min(amount, (held - 1) // 2))
        schedule.append(leaving)
        amount, held = amount - leaving, held - leaving
    if amount:
        raise ValueError("aggregation.tokens_per_block: at most half may leave in a block, which is less than that")
    return tuple(schedule)


def smaller_frames(model: ModelConfig, video: VideoConfig) -> list[VideoConfig]:
    """The same video with frames of every size that the encoder takes, largest first, itself among them."""
    found = []
    for size in range(video.image_size, 0, -1):
        # A crop keeps its share of the frame.
        crops = video.augment is True or video.fit == "crop"
        resize = max(size, round(video.resize * size / video.image_size)) if crops else video.resize
        smaller = replace(video, image_size=size, resize=resize)
        with suppress(ValueError):
            model.check(smaller, AggregationConfig())
            found.append(smaller)
    return found


def with_attention(model: ModelConfig, attention: Attention | None) -> ModelConfig:
    """The model with another kind of attention; ValueError if it has no choice."""
    if attention is None:
        return model
    if "attention" not in {field.name for field in fields(model)}:
        raise ValueError(f"reducers: attention: {model.name} has no choice of attention; leave out {attention}")
    changed: dict[str, Any] = {"attention": attention}
    return replace(model, **changed)


def nearest(at: Callable[[int], Matched], gmacs: float) -> Matched:
    """Of `at(0)`, `at(1)`, ... up to where it raises ValueError, none dearer than the one before, the nearest."""
    low, high = 0, 1
    while _fits(at, high) and at(high).cost.gmacs > gmacs:
        low, high = high, 2 * high

    # at(low) fits and costs too much (or is the first); at(high) costs little enough, or does not fit.
    while high - low > 1:
        middle = (low + high) // 2
        if _fits(at, middle) and at(middle).cost.gmacs > gmacs:
            low = middle
        else:
            high = middle

    candidates = [at(low), *([at(high)] if _fits(at, high) else [])]
    return min(candidates, key=lambda matched: abs(matched.cost.gmacs - gmacs))


def _fits(at: Callable[[int], Matched], amount: int) -> bool:
    try:
        at(amount)
    except ValueError:
        return False
    return True
