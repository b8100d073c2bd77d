"""Sizes of quadtrees (STTM): levels of a frame's pyramid, and how many squares a share of the patches is."""

import math

from configs.aggregation import AggregationConfig
from configs.schedule import keep_per_axis

COARSEST = 2
"""The pyramid ends where a side has so few squares."""


def level_sides(height: int, width: int, root_level: int) -> list[tuple[int, int]]:
    """Rows and columns of the levels, finest first, up to where trees begin: `root_level` below the coarsest, 0.

    A side is halved at each level, and an odd one leaves its first row or column alone. ValueError if there are not so
    many levels.
    """
    sides = [(height, width)]
    while min(sides[-1]) > COARSEST:
        sides.append((-(-sides[-1][0] // 2), -(-sides[-1][1] // 2)))
    if root_level >= len(sides):
        raise ValueError(
            f"aggregation.root_level: {root_level} is beyond the {len(sides)} levels of {height} x {width} patches, "
            "which count from 0, the coarsest"
        )
    return sides[: len(sides) - root_level]


def squares_of_share(share: float, num_frames: int, height: int, width: int, root_level: int) -> tuple[int, int]:
    """How many squares the frames of a video are divided into, and how many are left once they are joined over time.

    Space and time keep the same share each, rounded down. ValueError if the coarsest trees have more squares.
    """
    num_patches = num_frames * height * width
    in_frames = num_patches * keep_per_axis(share, 1 + (num_frames > 1))
    counts = (math.floor(in_frames + 1e-6), math.floor(share * num_patches + 1e-6))

    root_height, root_width = level_sides(height, width, root_level)[-1]
    roots = root_height * root_width
    if counts[0] < num_frames * roots or counts[1] < roots:
        least = max((num_frames * roots / num_patches) ** (1 + (num_frames > 1)), roots / num_patches)
        raise ValueError(
            f"aggregation.keep: {share} of {num_frames} x {height} x {width} patches is less than the coarsest "
            f"squares, {root_height} x {root_width} a frame; keep at least {least:.3g}, or lower aggregation.root_level"
        )
    return counts


def products_of_parts(num_frames: int, height: int, width: int, root_level: int) -> int:
    """How many products of vectors find a video's squares: each square has four parts, each with each."""
    levels = level_sides(height, width, root_level)[1:]
    return num_frames * sum(16 * rows * columns for rows, columns in levels)


def check_squares(settings: AggregationConfig, num_frames: int, height: int, width: int) -> None:
    """Refuse a level that the pyramid of these patches does not have, and a share that no tree is so small for."""
    level_sides(height, width, settings.root_level)
    if settings.keep is not None:
        squares_of_share(settings.keep, num_frames, height, width, settings.root_level)
