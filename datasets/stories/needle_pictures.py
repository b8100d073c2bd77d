"""The pictures of needles and of the story around them: shapes over a muted colour, one frame a second.

Coordinates are as in `datasets/stories/pictures.py`. P = rows of pixels, Q = columns, S = seconds.
"""

import numpy as np
from numpy.typing import NDArray

from datasets.stories.needles import ABOVE, LEFT, RISES, Drift, Event, Item, Scene, Timeline
from datasets.stories.pictures import RGB as STORY_RGB, Array, distance_outside, texture

RGB = {**STORY_RGB, "orange": (255, 130, 20)}
RADIUS = 0.42  # of half a frame: two shapes fit beside each other
LANE = 0.5
JITTER = 0.07
DARKER = 100.0
"""Grey levels between the muted colour of a story and that of a needle: every shape is brighter than what is around."""


def render_timeline(scenes: Timeline, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The frames of all scenes, (seconds, size, size, 3), RGB."""
    return np.concatenate([_render_scene(scene, size, rng) for scene in scenes])


def _render_scene(scene: Scene, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    y_PQ, x_PQ = np.meshgrid(axis, axis, indexing="ij")
    empty = texture("plain", x_PQ, y_PQ, rng) - DARKER
    middles = (
        _of_drift(scene.sight, scene, rng) if isinstance(scene.sight, Drift) else _of_event(scene.sight, scene, rng)
    )

    frames = np.empty((scene.seconds, size, size, 3), np.uint8)
    for second, frame in enumerate(frames):
        picture = empty
        for item, middle_S2 in middles:
            x, y = middle_S2[second]
            cover = _cover(item.shape, x_PQ - x, y_PQ - y)[..., None]
            picture = picture + cover * (np.array(RGB[item.colour]) - picture)
        frame[:] = np.rint(np.clip(picture, 0, 255))
    return frames


def _of_drift(drift: Drift, scene: Scene, rng: np.random.Generator) -> list[tuple[Item, Array]]:
    """The item on a straight way between two places: its middle (x, y) in each second."""
    begin, end = rng.uniform(RADIUS - 1, 1 - RADIUS, size=(2, 2))
    return [(drift.item, np.linspace(begin, end, scene.seconds))]


def _of_event(event: Event, scene: Scene, rng: np.random.Generator) -> list[tuple[Item, Array]]:
    """Where the two items are in each second.

    One that passes is on the left, and moves up or down in each second: any two of them show which way it goes.
    """
    if event.relation == ABOVE:
        first, second = np.array([[0, -LANE]]), np.array([[0, LANE]])
    else:
        first, second = np.array([[-LANE, 0]]), np.array([[LANE, 0]])

    first = first.repeat(scene.seconds, axis=0)
    if event.relation not in (LEFT, ABOVE):
        way = np.linspace(LANE, -LANE, scene.seconds)
        first[:, 1] = way if event.relation == RISES else -way

    jitter = rng.uniform(-JITTER, JITTER, size=(2, 2))
    return [(event.first, first + jitter[0]), (event.second, second.repeat(scene.seconds, axis=0) + jitter[1])]


def _cover(shape: str, x_PQ: Array, y_PQ: Array) -> Array:
    """How much of each pixel a shape about 0 covers, (P, Q) in [0, 1]."""
    pixel = 2 / len(x_PQ)
    return np.clip(0.5 - distance_outside(shape, x_PQ / RADIUS, y_PQ / RADIUS) * RADIUS / pixel, 0, 1)
