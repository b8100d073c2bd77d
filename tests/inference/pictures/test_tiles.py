"""Tiles against plain loops over cells and pixels."""

from itertools import product

import numpy as np
import pytest

from inference.pictures.tiles import (
    ALONE,
    bordered,
    frame_groups,
    frame_tiles,
    heat_tiles,
    mosaic,
    region_tiles,
)

GRID, CELL = (2, 3), 10
# Frames 0 and 2 are one; in it, patches 0, 1 and 5. Frame 1 keeps its patches but one, which was dropped.
HELD = np.array([[0, 0, 1, 2, 3, 0], [4, 5, 6, -1, 7, 8], [0, 0, 1, 2, 3, 0]])


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, GRID[0] * CELL, GRID[1] * CELL, 3), dtype=np.uint8)


def cell_of(tiles: np.ndarray, frame: int, patch: int) -> np.ndarray:
    row, column = divmod(patch, GRID[1])
    return tiles[frame, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]


def test_tiles_of_the_same_size_are_the_frames() -> None:
    assert np.array_equal(frame_tiles(pixels(), GRID, CELL), pixels())
    assert frame_tiles(pixels(), GRID, 7).shape == (3, 14, 21, 3)


def test_regions_have_the_mean_of_their_cells_and_one_edge() -> None:
    tiles = region_tiles(pixels(), HELD, GRID, CELL, merges_frames=True)
    together = [(0, 0), (0, 1), (0, 5), (2, 0), (2, 1), (2, 5)]
    mean = np.mean([cell_of(pixels(), *cell).mean(axis=(0, 1)) for cell in together], axis=0)
    edges = set()
    for cell in together:
        drawn = cell_of(tiles, *cell)
        assert np.abs(drawn[1:-1, 1:-1] - mean).max() <= 0.5
        edges.add(tuple(drawn[0, 5]))  # the top
    assert len(edges) == 1 and np.abs(np.subtract(edges.pop(), mean)).max() > 20
    # Patches 0 and 1 lie side by side: no edge between them.
    assert np.abs(cell_of(tiles, 0, 0)[1:-1, -1] - mean).max() <= 0.5
    assert np.abs(cell_of(tiles, 0, 1)[1:-1, 0] - mean).max() <= 0.5
    for frame, patch in product((0, 2), (2, 3, 4)):  # alone in their frame
        assert np.array_equal(cell_of(tiles, frame, patch), cell_of(pixels(), frame, patch))
    assert np.array_equal(cell_of(tiles, 1, 0), cell_of(pixels(), 1, 0))
    dropped = cell_of(pixels(), 1, 3)
    assert np.abs(cell_of(tiles, 1, 3) - (255 - 0.12 * (255.0 - dropped))).max() <= 1


def test_without_merging_of_frames_cells_of_other_frames_count() -> None:
    tiles = region_tiles(pixels(), HELD, GRID, CELL, merges_frames=False)
    mean = np.mean([cell_of(pixels(), frame, 3).mean(axis=(0, 1)) for frame in (0, 2)], axis=0)
    assert np.abs(cell_of(tiles, 2, 3)[1:-1, 1:-1] - mean).max() <= 0.5


def test_frames_that_merged_have_one_border() -> None:
    groups = frame_groups(np.array([[0, 1], [2, 3], [-1, -1], [0, 1], [-1, 4]]))
    assert groups == [0, 1, -1, 0, 4]
    tiles = bordered(np.zeros((5, 4, 4, 3), dtype=np.uint8), groups, 2)
    corners = [tuple(tile[0, 0]) for tile in tiles]
    assert corners[0] == corners[3] != ALONE
    assert corners[1] == corners[2] == corners[4] == ALONE
    assert (tiles[:, 2:-2, 2:-2] == 0).all() and (tiles[:, 1] == tiles[:, :1, :1][:, 0]).all()


def test_heat_is_brightest_and_outlined_where_the_best_token_is() -> None:
    similarity = np.where(HELD < 0, np.nan, 0.5 - 0.05 * HELD)
    tiles, (low, high) = heat_tiles(pixels(), similarity, HELD, GRID, CELL)
    assert (low, high) == pytest.approx((0.1, 0.5))
    outline = (90, 255, 255)
    for frame, patch in product(range(3), range(6)):
        cell = cell_of(tiles, frame, patch)
        assert (cell == outline).all(axis=-1).any() == (HELD[frame, patch] == 0)
    # Inside the best token's cells 0 and 1 nothing is drawn between the two.
    assert not (cell_of(tiles, 0, 0)[3:-3, -1] == outline).all(axis=-1).any()
    assert cell_of(tiles, 0, 0)[3:-3, 3:-3].mean() > cell_of(tiles, 1, 5).mean() + 50


def test_equal_similarities_are_drawn_too() -> None:
    tiles, limits = heat_tiles(pixels(), np.full((3, 6), 0.2), HELD, GRID, CELL)
    assert limits == (0.2, 0.2) and tiles.shape == pixels().shape


def test_a_mosaic_has_its_tiles_in_rows() -> None:
    tiles = [np.full((2, 3, 3), value, dtype=np.uint8) for value in range(3)]
    whole = mosaic([tiles[:2], tiles[2:]], gap=1)
    expected = [[0, 0, 0, 255, 1, 1, 1]] * 2 + [[255] * 7] + [[2, 2, 2, 255, 255, 255, 255]] * 2
    assert np.array_equal(whole[..., 0], expected)
