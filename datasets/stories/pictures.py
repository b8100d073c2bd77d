"""The pictures of a story: anti-aliased shapes from signed distances, over a noisy texture, fixed within a scene.

Coordinates run from -1 to 1 across the frame, x to the right and y downwards; a shape's own coordinates are scaled so
that it is about 2 wide. P = rows of pixels, Q = columns, F = frames of a scene.
"""

import numpy as np
from numpy.typing import NDArray

from datasets.stories.stories import TRAVEL_AXIS, Scene, Story, Thing

Array = NDArray[np.float64]

RGB = {
    "red": (225, 30, 30),
    "green": (25, 150, 40),
    "blue": (35, 60, 225),
    "yellow": (245, 230, 40),
    "purple": (165, 30, 185),
    "cyan": (50, 225, 230),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}
RADIUS = 0.4  # of half a frame: a shape is about a third of the frame wide
LANE = 0.5  # each of two things keeps to its half of the frame
JITTER = 0.08
TRAVEL = 0.55  # how far from its middle a thing moves
GROWTH = (0.5, 1.3)
OUTLINE = 0.08  # half the width of its line
NOISE = 6.0  # grey levels
CONTRAST = 28.0


def render(story: Story, size: int, frames_per_scene: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns the frames of the whole story: (scenes x frames_per_scene, size, size, 3), RGB."""
    return np.concatenate([_render_scene(scene, size, frames_per_scene, rng) for scene in story])


def _render_scene(scene: Scene, size: int, num_frames: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    background, covers = scene_covers(scene, size, num_frames, rng)
    frames = np.repeat(background[None], num_frames, axis=0)
    for thing, cover in zip(scene.things, covers, strict=True):
        frames += cover[..., None] * (np.array(RGB[thing.colour]) - frames)
    return np.rint(np.clip(frames, 0, 255)).astype(np.uint8)


def scene_covers(scene: Scene, size: int, num_frames: int, rng: np.random.Generator) -> tuple[Array, list[Array]]:
    """Returns the background (P, Q, 3), and for each thing how much of each pixel it covers, (F, P, Q) in [0, 1]."""
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    y_PQ, x_PQ = np.meshgrid(axis, axis, indexing="ij")
    background = texture(scene.background, x_PQ, y_PQ, rng)
    progress_F = (np.arange(num_frames) + 0.5) / num_frames

    covers = []
    for thing, (middle_x, middle_y) in zip(scene.things, _middles(scene, rng), strict=True):
        direction = rng.choice((-1, 1))
        covers.append(_cover(thing, x_PQ - middle_x, y_PQ - middle_y, progress_F, direction))
    return background, covers


def _middles(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float]]:
    """The middles of the things: one near the centre; two side by side, across the direction in which they move."""
    jitter = rng.uniform(-JITTER, JITTER, size=(2, 2))
    if len(scene.things) == 1:
        return [(jitter[0, 0], jitter[0, 1])]

    travels_y = any(TRAVEL_AXIS.get(thing.action) == "y" for thing in scene.things)
    lanes = rng.permutation((-LANE, LANE))
    if travels_y:
        return [(lane, along) for lane, along in zip(lanes, jitter[0], strict=True)]
    return [(along, lane) for lane, along in zip(lanes, jitter[0], strict=True)]


def _cover(thing: Thing, x_PQ: Array, y_PQ: Array, progress_F: Array, direction: int) -> Array:
    """Returns how much of each pixel the thing covers, (F, P, Q) in [0, 1].

    The timings are chosen so that two frames half a scene apart tell the actions from each other.
    """
    shift_x, shift_y, angle = np.zeros((3, len(progress_F)))
    scale_x = scale_y = np.ones(len(progress_F))
    outlined = np.zeros(len(progress_F), dtype=bool)
    there_and_back = TRAVEL * (2 * progress_F - 1)
    match thing.action:
        case "moves left":
            shift_x = -there_and_back
        case "moves right":
            shift_x = there_and_back
        case "moves up":
            shift_y = -there_and_back
        case "moves down":
            shift_y = there_and_back
        case "grows":
            scale_x = scale_y = np.interp(progress_F, (0, 1), GROWTH)
        case "shrinks":
            scale_x = scale_y = np.interp(1 - progress_F, (0, 1), GROWTH)
        case "spins":
            # No shape looks upright in both of two frames half a scene apart.
            angle = direction * np.deg2rad(30 + 120 * progress_F)
        case "blinks":
            # When switched off, the outline stays, so that every frame shows the colour.
            outlined = np.floor(6 * progress_F) % 2 == 1
        case "bounces":
            height = np.abs(np.cos(np.pi * (3 * progress_F + 0.2)))
            shift_y = TRAVEL * (1 - 2 * height)
            # Flat on the ground and long in flight, like a rubber ball: one frame distinguishes it from "moves up".
            scale_x, scale_y = 1.4 - 0.65 * height, 0.5 + 0.75 * height

    # Move each pixel into the coordinates of the shape: undo the shift, the rotation and the scale.
    x = x_PQ - shift_x[:, None, None]
    y = y_PQ - shift_y[:, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    radius_x, radius_y = RADIUS * scale_x[:, None, None], RADIUS * scale_y[:, None, None]
    distance = distance_outside(thing.shape, (cos * x + sin * y) / radius_x, (cos * y - sin * x) / radius_y)

    # Distances back in units of the frame; a pixel at the edge is covered in part.
    hollow = np.abs(distance + OUTLINE) - OUTLINE
    distance = np.where(outlined[:, None, None], hollow, distance) * np.minimum(radius_x, radius_y)
    pixel = 2 / len(x_PQ)
    return np.clip(0.5 - distance / pixel, 0, 1)


def distance_outside(shape: str, x: Array, y: Array) -> Array:
    """Returns the approximate distance of a point from the edge of the shape; negative inside."""
    match shape:
        case "circle":
            return np.hypot(x, y) - 0.95
        case "ring":
            return np.abs(np.hypot(x, y) - 0.75) - 0.25
        case "square":
            return np.maximum(np.abs(x), np.abs(y)) - 0.85
        case "triangle":
            y = y - 0.2  # put the middle of its height, not its centre of mass, in the middle
            return np.maximum(y, np.abs(x) * np.sqrt(3) / 2 - y / 2) - 0.62
        case "cross":
            longer, shorter = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
            return np.maximum(longer - 1, shorter - 0.34)
        case "star":
            return _star_distance(x, y)
    raise AssertionError(f"no such shape: {shape}")


def _star_distance(x: Array, y: Array) -> Array:
    """Returns the distance from the edge of a five-pointed star, folded into one half of one point."""
    outer, inner, half_point = 1.2, 0.52, np.pi / 5
    radius, turn = np.hypot(x, y), np.arctan2(x, -y)

    # All ten half points are mirror images: fold the angle into one of them, whose edge is a straight line.
    folded = np.abs((turn + half_point) % (2 * half_point) - half_point)
    tip = np.array((outer, 0.0))
    edge = np.array((inner * np.cos(half_point), inner * np.sin(half_point))) - tip
    normal = np.array((edge[1], -edge[0])) / np.hypot(*edge)
    return normal[0] * (radius * np.cos(folded) - tip[0]) + normal[1] * radius * np.sin(folded)


def texture(kind: str, x_PQ: Array, y_PQ: Array, rng: np.random.Generator) -> Array:
    """Returns the texture (P, Q, 3): a muted colour, the pattern with random position, angle and width, and noise."""
    turn = rng.uniform(-np.pi / 4, np.pi / 4)
    along = np.cos(turn) * x_PQ + np.sin(turn) * y_PQ
    across = np.cos(turn) * y_PQ - np.sin(turn) * x_PQ
    wave = 2 * np.pi / rng.uniform(0.3, 0.4)
    u, v = (wave * coordinate + rng.uniform(0, 2 * np.pi) for coordinate in (along, across))

    match kind:
        case "plain":
            pattern = np.zeros_like(u)
        case "striped":
            pattern = np.sin(u)
        case "dotted":
            pattern = np.where(np.cos(u) + np.cos(v) > 0.7, 1.0, -0.5)
        case "checkered":
            pattern = np.sign(np.sin(u / 2) * np.sin(v / 2))
        case "wavy":
            pattern = np.sin(u + 2.5 * np.sin(v / 2.5))
        case _:
            raise AssertionError(f"no such background: {kind}")

    base = rng.uniform(110, 150) + rng.uniform(-12, 12, size=3)
    return base + CONTRAST * pattern[..., None] + rng.normal(0, NOISE, size=(*x_PQ.shape, 3))
