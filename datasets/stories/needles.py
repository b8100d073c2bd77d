"""Needles: events of 1 to 3 seconds in hours of story, which a text describes and many other events nearly match.

In an event two coloured shapes are beside each other, or one passes the other. In between, a single shape drifts for
longer. A second is one frame.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan", "white", "orange")
"""Those that are brighter than the background."""
SHAPES = ("square", "triangle", "cross", "ring")
"""Those that small pictures tell apart."""
LEFT, ABOVE, RISES, FALLS = "left of", "above", "rises past", "falls past"
LOW, HIGH = "left below", "left above"
BESIDE, PASSING = (LEFT, ABOVE), (RISES, FALLS)
"""Relations that one frame shows, and those that only the order of two frames tells apart."""
EVENT = re.compile(rf"an? (\w+) (\w+) ({'|'.join((*BESIDE, *PASSING))}) an? (\w+) (\w+)")
"""The text of an event."""
BRIEF = (1, 3)
"""The fewest and most seconds of an event."""
LONG = (4, 12)
"""The same of what is between events."""


@dataclass(frozen=True)
class Item:
    """A coloured shape."""

    colour: str
    shape: str

    def __str__(self) -> str:
        article = "an" if self.colour.startswith("o") else "a"
        return f"{article} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Drift:
    """A single item on its way somewhere."""

    item: Item

    def __str__(self) -> str:
        return str(self.item)

    @property
    def items(self) -> tuple[Item, ...]:
        """What is seen."""
        return (self.item,)


@dataclass(frozen=True)
class Event:
    """Two items, and where they are to each other."""

    first: Item
    second: Item
    relation: str

    def __str__(self) -> str:
        return f"{self.first} {self.relation} {self.second}"

    @property
    def items(self) -> tuple[Item, ...]:
        """What is seen."""
        return self.first, self.second

    def ends(self) -> tuple["Event", "Event"]:
        """What the first frame of a passing event shows, and what the last one does."""
        assert self.relation in PASSING, "others look the same all the time"
        low, high = replace(self, relation=LOW), replace(self, relation=HIGH)
        return (low, high) if self.relation == RISES else (high, low)

    @property
    def facts(self) -> dict[str, str]:
        """All that its text says, by name."""
        first, second = self.first, self.second
        return {
            "first colour": first.colour,
            "first shape": first.shape,
            "relation": self.relation,
            "second colour": second.colour,
            "second shape": second.shape,
        }


class Scene(NamedTuple):
    """What is seen for some seconds, from `start` on."""

    sight: Event | Drift
    start: int
    seconds: int

    @property
    def end(self) -> int:
        """The second at which something else is seen."""
        return self.start + self.seconds


Timeline = tuple[Scene, ...]
Drawn = tuple[Event | Drift, int]
"""A sight, and for how many seconds it is seen."""


@dataclass(frozen=True)
class Hour:
    """All scenes of a video, and those of them that are searched for."""

    scenes: Timeline
    needles: Timeline


def read_event(text: str) -> Event | None:
    """The event of a text, with or without a full stop; None if it tells of no event."""
    found = EVENT.fullmatch(text.removesuffix("."))
    if found is None:
        return None
    colour, shape, relation, other_colour, other_shape = found.groups()
    return Event(Item(colour, shape), Item(other_colour, other_shape), relation)


def draw_event(rng: np.random.Generator, seconds: int) -> Event:
    """Two items of different colours and shapes; passing takes two seconds."""
    colours, shapes = rng.choice(COLOURS, 2, replace=False), rng.choice(SHAPES, 2, replace=False)
    first, second = (Item(str(colour), str(shape)) for colour, shape in zip(colours, shapes, strict=True))
    return Event(first, second, _relation(rng, seconds))


def draw_drift(rng: np.random.Generator) -> Drift:
    """Any item."""
    return Drift(Item(str(rng.choice(COLOURS)), str(rng.choice(SHAPES))))


def look_alike(rng: np.random.Generator, event: Event, seconds: int) -> Event:
    """An event that differs in one fact: a colour, a shape, the relation, or which item is which."""
    changes: tuple[Callable[[], Event], ...] = (
        lambda: replace(event, first=_changed(rng, event.first)),
        lambda: replace(event, second=_changed(rng, event.second)),
        lambda: replace(event, relation=_relation(rng, seconds)),
        lambda: replace(event, first=event.second, second=event.first),
    )
    while True:
        other = changes[rng.integers(len(changes))]()
        differs = other.first.colour != other.second.colour and other.first.shape != other.second.shape
        if other != event and differs and (seconds > 1 or other.relation not in PASSING):
            return other


def draw_hours(
    rng: np.random.Generator, num_hours: int, num_needles: int, num_look_alikes: int, seconds: int
) -> list[Hour]:
    """Hours with `num_needles` each, none of which is seen twice in all of them together.

    Each has also `num_look_alikes` events, each unlike some needle of any hour in one fact. Drifts fill the other
    seconds. What follows what is random.
    """
    needles: dict[Event, int] = {}
    while len(needles) < num_hours * num_needles:
        lasts = _brief(rng)
        needles.setdefault(draw_event(rng, lasts), lasts)
    every = list(needles.items())

    hours = []
    for hour in range(num_hours):
        own = every[hour * num_needles : (hour + 1) * num_needles]
        alike = [_alike(rng, every[rng.integers(len(every))][0], needles) for _ in range(num_look_alikes)]
        left = seconds - sum(lasts for _, lasts in (*own, *alike))
        assert left > LONG[1], "most of an hour is between events"
        drifts = [(draw_drift(rng), lasts) for lasts in _lengths(rng, left)]

        drawn: list[Drawn] = [*own, *alike, *drifts]
        scenes = _in_order([drawn[index] for index in rng.permutation(len(drawn))])
        hours.append(Hour(scenes, tuple(scene for scene in scenes if scene.sight in needles)))
    return hours


def draw_minutes(
    rng: np.random.Generator, num_minutes: int, families: int, hidden: Collection[Event | Drift], seconds: int
) -> list[Timeline]:
    """Minutes to learn from: events and drifts in turn, and no event of `hidden`.

    The events of a minute look like one of `families`, so that a batch of events from many minutes has some that differ
    in a fact or two.
    """
    models = [draw_event(rng, BRIEF[1]) for _ in range(families)]
    minutes = []
    for minute in range(num_minutes):
        drawn: list[Drawn] = []
        left = seconds
        while left >= 2 * LONG[0] + BRIEF[1]:
            lasts = _brief(rng)
            drawn.append((draw_drift(rng), LONG[0]))
            drawn.append((_family_member(rng, models[minute % families], lasts, hidden), lasts))
            left -= LONG[0] + lasts
        minutes.append(_in_order([*drawn, (draw_drift(rng), left)]))
    return minutes


def view_of(rng: np.random.Generator, scene: Scene, window: int, seconds: int) -> tuple[int, int]:
    """A window of a video of that many seconds: around all of a shorter scene, within a longer one."""
    first, last = sorted((scene.start, scene.end - window))
    start = int(rng.integers(max(0, first), min(last, seconds - window) + 1))
    return start, start + window


def glimpse_of(rng: np.random.Generator, scene: Scene, window: int) -> Scene:
    """A window that shows one frame of a passing event, the first or the last, and what that frame alone tells."""
    assert isinstance(scene.sight, Event)
    first, last = scene.sight.ends()
    if rng.random() < 0.5:
        return Scene(first, scene.start + 1 - window, window)
    return Scene(last, scene.end - 1, window)


def _family_member(rng: np.random.Generator, model: Event, seconds: int, hidden: Collection[Event | Drift]) -> Event:
    """The event that a family is named after, changed once or twice."""

    def draw() -> Event:
        once = look_alike(rng, model, seconds)
        return once if rng.random() < 0.5 else look_alike(rng, once, seconds)

    return _other(draw, hidden)


def _alike(rng: np.random.Generator, event: Event, needles: Collection[Event | Drift]) -> Drawn:
    lasts = _brief(rng)
    # Within one second nothing passes; where both events that remain are needles, the look-alike takes two.
    if event.relation in PASSING and all(replace(event, relation=beside) in needles for beside in BESIDE):
        lasts = max(lasts, BRIEF[0] + 1)
    return _other(lambda: look_alike(rng, event, lasts), needles), lasts


def _other(draw: Callable[[], Event], taken: Collection[Event | Drift]) -> Event:
    """The first event drawn that is not taken."""
    while (event := draw()) in taken:
        pass
    return event


def _brief(rng: np.random.Generator) -> int:
    return int(rng.integers(BRIEF[0], BRIEF[1] + 1))


def _lengths(rng: np.random.Generator, seconds: int) -> list[int]:
    """Seconds of drifts that add up; the last may be a little longer."""
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
    return str(rng.choice((*BESIDE, *PASSING) if seconds > 1 else BESIDE))


def _changed(rng: np.random.Generator, item: Item) -> Item:
    """An item with another colour or another shape, or by chance the same."""
    if rng.random() < 0.5:
        return replace(item, colour=str(rng.choice(COLOURS)))
    return replace(item, shape=str(rng.choice(SHAPES)))
