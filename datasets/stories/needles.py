"""Needles: events of 1 to 3 seconds in hours of scenes, which a text describes and many other scenes nearly match.

A scene shows two coloured shapes: beside each other, above each other or one after the other. A second is one frame.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from datasets.stories.stories import BACKGROUNDS, COLOURS, SHAPES

LEFT, ABOVE, BEFORE = "left of", "above", "before"
RELATIONS = (LEFT, ABOVE, BEFORE)
BRIEF = (1, 3)
"""The fewest and most seconds of a needle, and of a scene that looks like one."""
LONG = (4, 12)
"""The same of all other scenes of an hour."""


@dataclass(frozen=True)
class Item:
    """A coloured shape."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Sight:
    """Two items over a background; with the relation `before`, the first is seen and then the second."""

    first: Item
    second: Item
    relation: str
    background: str


class Scene(NamedTuple):
    """A sight that is seen for some seconds, from `start` on."""

    sight: Sight
    start: int
    seconds: int

    @property
    def end(self) -> int:
        """The second at which something else is seen."""
        return self.start + self.seconds


Timeline = tuple[Scene, ...]
Drawn = tuple[Sight, int]
"""A sight, and for how many seconds it is seen."""


@dataclass(frozen=True)
class Hour:
    """All scenes of a video, and those of them that are searched for."""

    scenes: Timeline
    needles: Timeline


def sentence(sight: Sight) -> str:
    """The sight in words."""
    first, second = (f"a {item.colour} {item.shape}" for item in (sight.first, sight.second))
    return f"{first} {sight.relation} {second} over a {sight.background} background"


def draw_sight(rng: np.random.Generator, seconds: int) -> Sight:
    """Two items of different colours and shapes; one after the other needs two seconds."""
    colours, shapes = rng.choice(COLOURS, 2, replace=False), rng.choice(SHAPES, 2, replace=False)
    first, second = (Item(str(colour), str(shape)) for colour, shape in zip(colours, shapes, strict=True))
    return Sight(first, second, _relation(rng, seconds), str(rng.choice(BACKGROUNDS)))


def look_alike(rng: np.random.Generator, sight: Sight, seconds: int) -> Sight:
    """A sight that differs in one fact: a colour, a shape, the relation, the background, or which item is which."""
    changes: tuple[Callable[[], Sight], ...] = (
        lambda: replace(sight, first=_changed(rng, sight.first)),
        lambda: replace(sight, second=_changed(rng, sight.second)),
        lambda: replace(sight, relation=_relation(rng, seconds)),
        lambda: replace(sight, background=str(rng.choice(BACKGROUNDS))),
        lambda: replace(sight, first=sight.second, second=sight.first),
    )
    while True:
        other = changes[rng.integers(len(changes))]()
        differs = other.first.colour != other.second.colour and other.first.shape != other.second.shape
        if other != sight and differs and (seconds > 1 or other.relation != BEFORE):
            return other


def draw_hours(
    rng: np.random.Generator, num_hours: int, num_needles: int, num_look_alikes: int, seconds: int
) -> list[Hour]:
    """Hours with `num_needles` each; every sight of a needle is seen once in all of them together.

    Each has also `num_look_alikes` brief scenes, each unlike some needle of any hour in one fact. Long scenes fill the
    other seconds.
    """
    needles: dict[Sight, int] = {}
    while len(needles) < num_hours * num_needles:
        lasts = _brief(rng)
        needles.setdefault(draw_sight(rng, lasts), lasts)
    every = list(needles.items())

    hours = []
    for hour in range(num_hours):
        own = every[hour * num_needles : (hour + 1) * num_needles]
        alike = [_alike(rng, every[rng.integers(len(every))][0], needles) for _ in range(num_look_alikes)]
        left = seconds - sum(lasts for _, lasts in (*own, *alike))
        assert left > LONG[1], "most of an hour is long scenes"
        long = [(_long(rng, lasts, needles), lasts) for lasts in _lengths(rng, left)]

        drawn = [*own, *alike, *long]
        scenes = _in_order([drawn[index] for index in rng.permutation(len(drawn))])
        hours.append(Hour(scenes, tuple(scene for scene in scenes if scene.sight in needles)))
    return hours


def draw_minutes(
    rng: np.random.Generator, num_minutes: int, families: int, hidden: Collection[Sight], seconds: int
) -> list[Timeline]:
    """Minutes to learn from, without any sight of `hidden`.

    The scenes of a minute look like one of `families` sights, so that a batch of scenes from many minutes has some that
    differ in a fact or two.
    """
    models = [draw_sight(rng, BRIEF[1]) for _ in range(families)]
    minutes = []
    for minute in range(num_minutes):
        drawn: list[Drawn] = []
        left = seconds
        while left:
            lasts = min(left, int(rng.integers(BRIEF[0], 2 * BRIEF[1] + 1)))
            drawn.append((_family_member(rng, models[minute % families], lasts, hidden), lasts))
            left -= lasts
        minutes.append(_in_order(drawn))
    return minutes


def view_of(rng: np.random.Generator, scene: Scene, window: int, seconds: int) -> tuple[int, int]:
    """A window of a video of that many seconds in which the scene is recognised: all of a brief one, or its middle."""
    first, last = scene.start, scene.end
    if scene.seconds > min(BRIEF[1], window):
        middle = scene.start + scene.seconds // 2
        first, last = middle - 1, middle + 1
    start = int(rng.integers(max(0, last - window), min(first, seconds - window) + 1))
    return start, start + window


def _family_member(rng: np.random.Generator, model: Sight, seconds: int, hidden: Collection[Sight]) -> Sight:
    """The sight that a family is named after, changed once or twice."""

    def draw() -> Sight:
        once = look_alike(rng, model, seconds)
        return once if rng.random() < 0.5 else look_alike(rng, once, seconds)

    return _other(draw, hidden)


def _alike(rng: np.random.Generator, sight: Sight, needles: Collection[Sight]) -> Drawn:
    lasts = _brief(rng)
    return _other(lambda: look_alike(rng, sight, lasts), needles), lasts


def _long(rng: np.random.Generator, seconds: int, needles: Collection[Sight]) -> Sight:
    return _other(lambda: draw_sight(rng, seconds), needles)


def _other(draw: Callable[[], Sight], taken: Collection[Sight]) -> Sight:
    """The first sight drawn that is not taken."""
    while (sight := draw()) in taken:
        pass
    return sight


def _brief(rng: np.random.Generator) -> int:
    return int(rng.integers(BRIEF[0], BRIEF[1] + 1))


def _lengths(rng: np.random.Generator, seconds: int) -> list[int]:
    """Seconds of long scenes that add up; the last may be a little longer."""
    lengths: list[int] = []
    while seconds >= LONG[0]:
        lengths.append(min(seconds, int(rng.integers(LONG[0], LONG[1] + 1))))
        seconds -= lengths[-1]
    lengths[-1] += seconds
    return lengths


def _in_order(drawn: list[Drawn]) -> Timeline:
    """The sights one after the other."""
    scenes, start = [], 0
    for sight, lasts in drawn:
        scenes.append(Scene(sight, start, lasts))
        start += lasts
    return tuple(scenes)


def _relation(rng: np.random.Generator, seconds: int) -> str:
    return str(rng.choice(RELATIONS if seconds > 1 else (LEFT, ABOVE)))


def _changed(rng: np.random.Generator, item: Item) -> Item:
    """An item with another colour or another shape, or by chance the same."""
    if rng.random() < 0.5:
        return replace(item, colour=str(rng.choice(COLOURS)))
    return replace(item, shape=str(rng.choice(SHAPES)))
