"""Frames as pixel tiles: merged patches in their mean colour, merged frames in one border, similarities as heat.

Shapes: T frames, L patches a frame in a grid of rows and columns. In a tile each patch is a square of `cell` pixels.
`held` (T, L) gives cells of one token the same number, and dropped cells -1.
"""

import colorsys
from collections.abc import Sequence

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Held = NDArray[np.int64]
GOLDEN = 0.618034  # steps of the golden ratio around the hue circle keep consecutive numbers apart
SHADES = ((0.85, 0.95), (0.45, 1.0), (0.95, 0.55))  # saturation and value
SHADE_AFTER = 8  # numbers further apart than this may share a hue
ALONE = (205, 205, 205)
WHITE = 255
HEAT = "inferno"
HEAT_SHARE = 0.65
DROPPED_SHARE = 0.12


def frame_groups(held: Held) -> list[int]:
    """For each frame the first frame of its group, itself if it did not merge, -1 if it was dropped.

    Only for models that merge whole frames: two frames then share all of their tokens or none.
    """
    last = held.max(axis=1)
    return [-1 if token < 0 else int(np.argmax(last == token)) for token in last]


def frame_tiles(frames: Pixels, grid: tuple[int, int], cell: int) -> Pixels:
    """Resize frames (T, H, W, 3) to tiles."""
    size = (grid[1] * cell, grid[0] * cell)
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames])


def region_tiles(frames: Pixels, held: Held, grid: tuple[int, int], cell: int, merges_frames: bool) -> Pixels:
    """Tiles (T, rows, columns, 3) in which merged patches show their mean colour, with an edge around each region.

    A patch that did not merge keeps its pixels; a dropped patch fades.
    """
    tiles = frame_tiles(frames, grid, cell)
    # Cut the tiles into patches (T, L, cell, cell, 3).
    patches = tiles.reshape(len(tiles), grid[0], cell, grid[1], cell, 3).swapaxes(2, 3)
    patches = patches.reshape(*held.shape, cell, cell, 3).copy()

    colour = _mean_colour(patches, held)
    merged, dropped = _is_merged(held, merges_frames), held < 0
    patches[merged] = colour[merged][:, None, None]
    patches[dropped] = WHITE - DROPPED_SHARE * (WHITE - patches[dropped].astype(np.float64))

    # Draw an edge on each side of a merged patch whose neighbour belongs to another token.
    edge_colour = _edge_colours(held)
    width = max(1, cell // 9)
    for side, differs in _edges(held, grid).items():
        is_edge = differs & merged
        strip = patches[_STRIPS[side](width)]
        strip[is_edge] = edge_colour[is_edge][:, None, None]

    frames = patches.reshape(len(tiles), *grid, cell, cell, 3).swapaxes(2, 3)
    return frames.reshape(tiles.shape)


def heat_tiles(
    frames: Pixels, similarity: NDArray[np.float64], held: Held, grid: tuple[int, int], cell: int
) -> tuple[Pixels, tuple[float, float]]:
    """Tiles with similarities (T, L) as heat over grey frames, the best token outlined; and the range of the heat."""
    low, high = float(np.nanmin(similarity)), float(np.nanmax(similarity))
    scaled = np.nan_to_num((similarity - low) / max(high - low, 1e-12))
    heat = matplotlib.colormaps[HEAT](scaled)[..., :3] * 255

    best = held == held.flat[np.nanargmax(similarity)]

    # Blend the heat with the grey frames.
    grey = frame_tiles(frames, grid, cell).astype(np.float64).mean(axis=-1, keepdims=True)
    over = heat.reshape(len(heat), *grid, 3).repeat(cell, axis=1).repeat(cell, axis=2)
    mixed = HEAT_SHARE * over + (1 - HEAT_SHARE) * grey

    # The outline is what remains of the best token's area without its interior: pixels whose four neighbours, `width`
    # away, are all inside.
    outlined = best.reshape(len(heat), *grid).repeat(cell, axis=1).repeat(cell, axis=2)
    width = max(2, cell // 6)
    inside = outlined.copy()
    for axis in (1, 2):
        for shift in (-width, width):
            inside &= _shifted(outlined, shift, axis)
    mixed[outlined & ~inside] = (90, 255, 255)

    return np.rint(mixed).astype(np.uint8), (low, high)


def bordered(tiles: Pixels, groups: Sequence[int], width: int) -> Pixels:
    """Add a border to each tile: one colour for each group of merged frames, grey for a frame alone."""
    out = np.empty((len(tiles), tiles.shape[1] + 2 * width, tiles.shape[2] + 2 * width, 3), dtype=np.uint8)
    for frame, group in enumerate(groups):
        out[frame] = border_colour(groups, group)
        out[frame, width:-width, width:-width] = tiles[frame]
    return out


def border_colour(groups: Sequence[int], group: int) -> tuple[int, int, int]:
    """The border colour of a group of frames; blocks agree on it while the group keeps its first frame."""
    if group < 0 or list(groups).count(group) == 1:
        return ALONE
    return _colour(group)


def mosaic(rows: Sequence[Sequence[Pixels]], gap: int) -> Pixels:
    """Arrange tiles of one size in rows, with white gaps."""
    height, width = rows[0][0].shape[:2]
    columns = max(map(len, rows))
    out = np.full((len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3), WHITE, dtype=np.uint8)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            top, left = row * (height + gap), column * (width + gap)
            out[top : top + height, left : left + width] = tile
    return out


def _mean_colour(patches: Pixels, held: Held) -> Pixels:
    """For each cell the mean colour of its token's cells, (T, L, 3)."""
    own = patches.astype(np.float64).mean(axis=(2, 3)).reshape(-1, 3)
    token = np.unique(held, return_inverse=True)[1].ravel()
    sums = np.zeros((token.max() + 1, 3))
    np.add.at(sums, token, own)
    return np.rint((sums / np.bincount(token)[:, None])[token]).astype(np.uint8).reshape(*held.shape, 3)


def _is_merged(held: Held, merges_frames: bool) -> NDArray[np.bool_]:
    """Which cells (T, L) merged with another; if whole frames merge, only with one of their own frame."""
    groups = list(held) if merges_frames else [held]
    parts = []
    for group in groups:
        _, token, count = np.unique(group, return_inverse=True, return_counts=True)
        parts.append(count[token].reshape(group.shape) > 1)
    return (np.stack(parts) if merges_frames else parts[0]) & (held >= 0)


def _edge_colours(held: Held) -> Pixels:
    """The edge colour (T, L, 3) of each cell, chosen by the first cell of its token."""
    _, first, token = np.unique(held, return_index=True, return_inverse=True)
    return np.array([_colour(cell) for cell in first], dtype=np.uint8)[token.ravel()].reshape(*held.shape, 3)


def _edges(held: Held, grid: tuple[int, int]) -> dict[str, NDArray[np.bool_]]:
    """For each side, which cells (T, L) border on another token or on the end of the frame."""
    padded = np.pad(held.reshape(-1, *grid), ((0, 0), (1, 1), (1, 1)), constant_values=-2)
    middle = padded[:, 1:-1, 1:-1]
    beside = {
        "top": padded[:, :-2, 1:-1],
        "bottom": padded[:, 2:, 1:-1],
        "left": padded[:, 1:-1, :-2],
        "right": padded[:, 1:-1, 2:],
    }
    return {side: (middle != neighbour).reshape(held.shape) for side, neighbour in beside.items()}


_STRIPS = {
    "top": lambda width: np.s_[:, :, :width],
    "bottom": lambda width: np.s_[:, :, -width:],
    "left": lambda width: np.s_[:, :, :, :width],
    "right": lambda width: np.s_[:, :, :, -width:],
}


def _shifted(mask: NDArray[np.bool_], shift: int, axis: int) -> NDArray[np.bool_]:
    """Shift the mask along an axis, filling with False."""
    moved = np.roll(mask, shift, axis)
    entering = [slice(None)] * mask.ndim
    entering[axis] = slice(0, shift) if shift > 0 else slice(shift, None)
    moved[tuple(entering)] = False
    return moved


def _colour(number: int) -> tuple[int, int, int]:
    """A colour that differs clearly from the next numbers' colours."""
    red, green, blue = colorsys.hsv_to_rgb(number * GOLDEN % 1, *SHADES[number // SHADE_AFTER % len(SHADES)])
    return round(255 * red), round(255 * green), round(255 * blue)
