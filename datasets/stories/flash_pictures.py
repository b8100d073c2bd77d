"""The pictures of a story of flashes: long scenes under a moving camera, where a small coloured shape flashes up.

Nothing of a frame equals the next one: the camera pans by fractions of a pixel and the light changes. So what leaves
out equal pixels finds few, what leaves out frames misses flashes, and what shrinks frames blurs the small shapes, so
that they look like the larger and paler ones which are there all the time and mean nothing.
Coordinates are as in `datasets/stories/pictures.py`. P = rows of pixels, Q = columns.
"""

import numpy as np
from numpy.typing import NDArray

from datasets.stories.glimpse_pictures import GREYS, shape_cover
from datasets.stories.glimpses import Glimpse, LongStory
from datasets.stories.pictures import RGB, Array, texture
from datasets.stories.stories import COLOURS, SHAPES

RADIUS = 0.25  # of half a frame
GREY_RADIUS = (0.2, 0.35)
DISTRACTORS = 2
PALE = (0.1, 0.3)  # how much of a colour a distractor has
DRIFT = 0.25  # how far a grey shape moves within a scene, besides the camera
PAN = 0.4  # how far the camera moves within a scene, to each side
LIGHT = 0.15  # how much brighter and darker a scene becomes


def render_flashes(story: LongStory, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns the frames of the whole story: (frames, size, size, 3), RGB."""
    return np.concatenate([_render_scene(glimpse, size, rng) for glimpse in story])


def _render_scene(glimpse: Glimpse, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    y_PQ, x_PQ = np.meshgrid(axis, axis, indexing="ij")
    progress_F = np.linspace(-1, 1, glimpse.num_frames)

    # The camera follows a straight path at a changing speed; the light rises and falls.
    heading, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3)
    along_F = progress_F + bend * (1 - progress_F**2)
    camera_F2 = PAN * along_F[:, None] * (np.cos(heading), np.sin(heading))
    light_F = 1 + LIGHT * np.sin(rng.uniform(0, 2 * np.pi) + rng.uniform(2, 4) * progress_F)

    canvas = _canvas(glimpse.background, size, rng)
    frames = np.stack([_window(canvas, size, camera) for camera in camera_F2])
    # Where each pixel lies in the scene.
    x_FPQ, y_FPQ = (part_PQ + camera_F2[:, place, None, None] for place, part_PQ in enumerate((x_PQ, y_PQ)))

    for _ in range(DISTRACTORS):
        x, y, drift_x, drift_y = rng.uniform(-1, 1, size=4) * (0.8, 0.8, DRIFT, DRIFT)
        radius, shape = rng.uniform(*GREY_RADIUS), str(rng.choice(SHAPES))
        moved_x, moved_y = x + drift_x * progress_F, y + drift_y * progress_F
        cover = shape_cover(shape, x_FPQ - moved_x[:, None, None], y_FPQ - moved_y[:, None, None], radius)

        grey, colour = rng.uniform(*GREYS), np.array(RGB[str(rng.choice(COLOURS))])
        frames += cover[..., None] * (grey + rng.uniform(*PALE) * (colour - grey) - frames)

    # The coloured shape stands still in the scene, within the frame for as long as it is seen.
    seen = slice(glimpse.begin, glimpse.begin + glimpse.seen)
    x, y = camera_F2[seen].mean(axis=0) + rng.uniform(RADIUS - 0.9, 0.9 - RADIUS, size=2)
    cover = shape_cover(glimpse.shape, x_FPQ[seen] - x, y_FPQ[seen] - y, RADIUS)[..., None]
    frames[seen] += cover * (np.array(RGB[glimpse.colour]) - frames[seen])

    return np.rint(np.clip(frames * light_F[:, None, None, None], 0, 255)).astype(np.uint8)


def _canvas(background: str, size: int, rng: np.random.Generator) -> Array:
    """Returns the scene as far as the camera goes: (2 size, 2 size, 3), the frame in the middle."""
    axis = (np.arange(2 * size) + 0.5) * 2 / size - 2
    y_PQ, x_PQ = np.meshgrid(axis, axis, indexing="ij")
    return texture(background, x_PQ, y_PQ, rng)


def _window(canvas: Array, size: int, camera: Array) -> Array:
    """Returns what the camera at (x, y) sees, (size, size, 3), interpolated between pixels."""
    corner = size / 2 + camera[::-1] * size / 2
    whole = np.floor(corner).astype(int)
    below, right = corner - whole
    row, column = whole

    seen = canvas[row : row + size + 1, column : column + size + 1]
    rows = (1 - below) * seen[:-1] + below * seen[1:]
    return (1 - right) * rows[:, :-1] + right * rows[:, 1:]
