"""Constant schedules that cost what is asked for: the nearest for one axis, the nearest balanced one for two."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from benchmarks.reducers.settings import Reducer
from configs.model import REDUCER_SETTINGS
from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.testa.cost import Cost, count


@dataclass(frozen=True)
class Matched:
    """A reducer with its schedule: what the encoder is built of, and what that costs."""

    name: str
    model: TestaConfig
    video: VideoConfig
    aggregation: AggregationConfig
    cost: Cost

    @property
    def overrides(self) -> tuple[str, ...]:
        """The same as settings of a command; all that its reducer takes, since a recipe may say other things."""
        names = [name for name in REDUCER_SETTINGS[self.aggregation.reducer] if name != "keep"]
        if self.aggregation.reducer not in ("none", "prune"):
            names += ["proportional_attention", "weighted_pooling"]
        return (
            f"model.attention={self.model.attention}",
            f"video.num_frames={self.video.num_frames}",
            *(f"aggregation.{name}={getattr(self.aggregation, name)}" for name in ("reducer", *names)),
        )


def priced(name: str, model: TestaConfig, video: VideoConfig, aggregation: AggregationConfig) -> Matched:
    """A given schedule with its cost; ValueError if the encoder cannot hold it."""
    model.check(video, aggregation)
    return Matched(name, model, video, aggregation, count(model, video, aggregation))


def match(reducer: Reducer, model: TestaConfig, video: VideoConfig, gmacs: float) -> Matched:
    """The reducer at the constant schedule whose cost is nearest to `gmacs`; the least merging of those equally near.

    Where both axes merge, one number of patches goes with each of frames: that which leaves the most similar shares of
    both, so that neither axis is favoured.
    """
    model = replace(model, attention=reducer.attention)

    @cache
    def at(amount: int) -> Matched:
        aggregation, read = reducer.aggregation, video
        match reducer.matched_by:
            case "num_frames":
                read = replace(video, num_frames=video.num_frames - amount)
            case "both":
                patches = balanced_patches(amount, model, video)
                aggregation = replace(aggregation, frames_per_block=amount, patches_per_block=patches)
            case "frames" | "patches" | "tokens":
                leaving: dict[str, Any] = {f"{reducer.matched_by}_per_block": amount}
                aggregation = replace(aggregation, **leaving)
        return priced(reducer.name, model, read, aggregation)

    return at(0) if reducer.matched_by == "nothing" else nearest(at, gmacs)


def balanced_patches(frames: int, model: TestaConfig, video: VideoConfig) -> int:
    """How many patches have to leave in every block for their share at the end to be as near as can be to the frames'.

    Half a patch is rounded down: less merging.
    """
    patches = (video.image_size // model.patch_size) ** 2
    return math.ceil(frames * patches / video.num_frames - 0.5)


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
    return min(candidates, key=lambda one: abs(one.cost.gmacs - gmacs))


def _fits(at: Callable[[int], Matched], amount: int) -> bool:
    try:
        at(amount)
    except ValueError:
        return False
    return True
