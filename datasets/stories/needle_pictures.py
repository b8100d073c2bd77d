"""The pictures of needles and of the scenes around them: still shapes over a texture, one frame a second.

Coordinates are as in `datasets/stories/pictures.py`. P = rows of pixels, Q = columns.
"""

import numpy as np
from numpy.typing import NDArray

from datasets.stories.needles import ABOVE, BEFORE, Scene, Timeline
from datasets.stories.pictures import RGB, Array, distance_outside, texture

RADIUS = 0.42  # of half a frame: two shapes fit beside each other
LANE = 0.5
JITTER = 0.07


def render_timeline(scenes: Timeline, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The frames of all scenes, (seconds, size, size, 3), RGB."""
    return np.concatenate([_render_scene(scene, size, rng) for scene in scenes])


def _render_scene(scene: Scene, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    y_PQ, x_PQ = np.meshgrid(axis, axis, indexing="ij")
    sight = scene.sight
    empty = texture(sight.background, x_PQ, y_PQ, rng)

    # Where the two items are: in halves of the frame, or both in its middle.
    lane = 0.0 if sight.relation == BEFORE else LANE
    jitter = rng.uniform(-JITTER, JITTER, size=(2, 2))
    covers = []
    for item, (along, across), side in zip((sight.first, sight.second), jitter, (-lane, lane), strict=True):
        x, y = (across, along + side) if sight.relation == ABOVE else (along + side, across)
        colour = np.array(RGB[item.colour])
        covers.append((_cover(item.shape, x_PQ - x, y_PQ - y)[..., None], colour))

    # One after the other, each has half of the seconds.
    if sight.relation == BEFORE:
        turn = scene.seconds // 2
        pictures = [_painted(empty, covers[:1])] * turn + [_painted(empty, covers[1:])] * (scene.seconds - turn)
    else:
        pictures = [_painted(empty, covers)] * scene.seconds
    return np.stack(pictures)


def _painted(picture: Array, covers: list[tuple[Array, Array]]) -> NDArray[np.uint8]:
    for cover, colour in covers:
        picture = picture + cover * (colour - picture)
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)


def _cover(shape: str, x_PQ: Array, y_PQ: Array) -> Array:
    """How much of each pixel a shape about 0 covers, (P, Q) in [0, 1]."""
    pixel = 2 / len(x_PQ)
    return np.clip(0.5 - distance_outside(shape, x_PQ / RADIUS, y_PQ / RADIUS) * RADIUS / pixel, 0, 1)
