"""The pictures of a long story: still scenes with drifting grey shapes and small coloured shapes that come and go.

Coordinates are as in `datasets/stories/pictures.py`. P = rows of pixels, Q = columns.
"""

import numpy as np
from numpy.typing import NDArray

from datasets.stories.glimpses import DISTRACTORS, Glimpse, LongStory
from datasets.stories.pictures import RGB, Array, distance_outside, texture
from datasets.stories.stories import SHAPES

RADIUS = 0.35  # of half a frame: about a third of the width, a tenth of the area
GREY_RADIUS = (0.25, 0.4)
DRIFT = 0.25  # how far a grey shape moves within a scene
GREYS = (60.0, 200.0)


def render_long(story: LongStory, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns the frames of the whole story: (frames, size, size, 3), RGB."""
    return np.concatenate([_render_scene(glimpse, size, rng) for glimpse in story])


def _render_scene(glimpse: Glimpse, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    y_PQ, x_PQ = np.meshgrid(axis, axis, indexing="ij")
    frames = np.repeat(texture(glimpse.background, x_PQ, y_PQ, rng)[None], glimpse.num_frames, axis=0)
    progress = np.linspace(-1, 1, glimpse.num_frames)[:, None, None]

    # Grey shapes drift behind everything for the whole scene.
    for _ in range(DISTRACTORS):
        x, y, drift_x, drift_y = rng.uniform(-1, 1, size=4) * (0.8, 0.8, DRIFT, DRIFT)
        radius = rng.uniform(*GREY_RADIUS)
        moved_x, moved_y = x_PQ - x - drift_x * progress, y_PQ - y - drift_y * progress
        cover = shape_cover(str(rng.choice(SHAPES)), moved_x, moved_y, radius)
        frames += cover[..., None] * (rng.uniform(*GREYS) - frames)

    # The coloured shape stands still, and only some frames show it.
    x, y = rng.uniform(RADIUS - 1, 1 - RADIUS, size=2)
    cover = shape_cover(glimpse.shape, x_PQ - x, y_PQ - y, RADIUS)[..., None]
    seen = slice(glimpse.begin, glimpse.begin + glimpse.seen)
    frames[seen] += cover * (np.array(RGB[glimpse.colour]) - frames[seen])

    return np.rint(np.clip(frames, 0, 255)).astype(np.uint8)


def shape_cover(shape: str, x: Array, y: Array, radius: float) -> Array:
    """Returns how much of each pixel a shape of that radius about 0 covers, (..., P, Q) in [0, 1]."""
    pixel = 2 / x.shape[-1]
    return np.clip(0.5 - distance_outside(shape, x / radius, y / radius) * radius / pixel, 0, 1)
