"""What happens in a story: scenes of one or two coloured shapes, drawn at random from a small closed world."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan", "white", "black")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
ACTIONS = (
    "moves left",
    "moves right",
    "moves up",
    "moves down",
    "grows",
    "shrinks",
    "spins",
    "blinks",
    "bounces",
)
BACKGROUNDS = ("plain", "striped", "dotted", "checkered", "wavy")

# The axis along which an action moves; the other actions stay in place.
TRAVEL_AXIS = {"moves left": "x", "moves right": "x", "moves up": "y", "moves down": "y", "bounces": "y"}
NUM_TEMPLATES = 3
SHARE_OF_TWO = 0.35


@dataclass(frozen=True, order=True)
class Thing:
    """A coloured shape and what it does."""

    colour: str
    shape: str
    action: str


@dataclass(frozen=True)
class Scene:
    """One or two things over a background; `template` chooses the wording of its sentence."""

    things: tuple[Thing, ...]
    background: str
    template: int

    @property
    def facts(self) -> tuple[str, tuple[Thing, ...]]:
        """What can be seen, whatever the wording: the same for two scenes that look alike."""
        return self.background, tuple(sorted(self.things))


Story = tuple[Scene, ...]


class Told(Protocol):
    """A scene of any kind of story."""

    @property
    def facts(self) -> tuple[Any, ...]:
        """What can be seen, or what the text says."""


AnyScene = TypeVar("AnyScene", bound=Told)


def draw_story(rng: np.random.Generator, num_scenes: int) -> Story:
    """Draws `num_scenes` scenes, no two of which look alike."""
    scenes: dict[tuple[str, tuple[Thing, ...]], Scene] = {}
    while len(scenes) < num_scenes:
        scene = _draw_scene(rng)
        scenes.setdefault(scene.facts, scene)
    return tuple(scenes.values())


def draw_splits(
    rng: np.random.Generator, counts: dict[str, int], num_scenes: int, pair_share: float
) -> dict[str, list[Story]]:
    """Draws the stories of every split, as `draw_partnered` does."""
    return draw_partnered(rng, counts, lambda _, rng: draw_story(rng, num_scenes), pair_share)


def draw_partnered(
    rng: np.random.Generator,
    counts: dict[str, int],
    draw: Callable[[str, np.random.Generator], tuple[AnyScene, ...]],
    pair_share: float,
) -> dict[str, list[tuple[AnyScene, ...]]]:
    """Draws the stories of every split with `draw`, which gets its name; no two show the same scenes but for partners.

    This holds across splits, too. The first `num_paired(count, pair_share)` stories of a split are pairs of partners (0
    and 1, 2 and 3, ...), which show the same scenes in another order.
    """
    seen: set[frozenset[tuple[Any, ...]]] = set()
    splits = {}
    for split, count in counts.items():
        stories: list[tuple[AnyScene, ...]] = []
        paired = num_paired(count, pair_share)
        while len(stories) < count:
            story = draw(split, rng)
            content = frozenset(scene.facts for scene in story)
            if content in seen:
                continue

            seen.add(content)
            stories.append(story)
            if len(stories) < paired:
                stories.append(_reorder(rng, story))
        splits[split] = stories
    return splits


def num_paired(count: int, pair_share: float) -> int:
    """Returns how many of `count` stories have a partner: the share, rounded down to an even number."""
    return 2 * int(count * pair_share / 2)


def _choose(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[rng.integers(len(choices))]


def _draw_thing(rng: np.random.Generator) -> Thing:
    shape = _choose(rng, SHAPES)
    # A round shape looks the same whether it spins or not.
    actions = tuple(action for action in ACTIONS if action != "spins" or shape not in ("circle", "ring"))
    return Thing(_choose(rng, COLOURS), shape, _choose(rng, actions))


def _draw_scene(rng: np.random.Generator) -> Scene:
    things = [_draw_thing(rng)]
    wanted = 2 if rng.random() < SHARE_OF_TWO else 1
    while len(things) < wanted:
        other = _draw_thing(rng)
        if _go_together(things[0], other):
            things.append(other)
    return Scene(tuple(things), _choose(rng, BACKGROUNDS), int(rng.integers(NUM_TEMPLATES)))


def _go_together(first: Thing, second: Thing) -> bool:
    """Two things differ in colour and shape, so that either identifies one, and their paths never cross."""
    axes = {TRAVEL_AXIS[thing.action] for thing in (first, second) if thing.action in TRAVEL_AXIS}
    return first.colour != second.colour and first.shape != second.shape and len(axes) < 2


def _reorder(rng: np.random.Generator, story: tuple[AnyScene, ...]) -> tuple[AnyScene, ...]:
    while True:
        reordered = tuple(story[index] for index in rng.permutation(len(story)))
        if reordered != story:
            return reordered
