"""Figures of a trace: final regions, each block, token similarities, where a phrase is; and a video of the frames."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from inference.pictures.tiles import (
    HEAT,
    Pixels,
    bordered,
    frame_groups,
    frame_tiles,
    heat_tiles,
    mosaic,
    region_tiles,
)
from inference.pictures.trace import Trace

COLUMNS = 8
LARGE, SMALL = 176, 112  # pixels of a tile, about
BORDER, GAP = 5, 6
DPI = 100
LEFT, TOP, RIGHT, BOTTOM = 104, 92, 18, 18
"""Margins around a mosaic, in pixels."""
SHADES = {  # merged, others
    "time": ("frames", "#1f4e8c", "#a9c8ec"),
    "space": ("patches of a frame", "#c65a11", "#f7c8a0"),
    "joint": ("patches of all frames", "#3b7d34", "#b7dcb0"),
}
Heat = NDArray[np.float64]


def draw_end(trace: Trace, title: str) -> Figure:
    """Draw every frame, and below it its regions after the last block."""
    cell = _cell(trace, LARGE)
    groups = _groups(trace, trace.blocks[-1])
    shown = bordered(frame_tiles(trace.frames, trace.grid, cell), groups, BORDER)
    regions = bordered(_regions(trace, trace.blocks[-1], cell), groups, BORDER)

    rows, labels, numbers = [], [], []
    for first in range(0, len(shown), COLUMNS):
        part = slice(first, first + COLUMNS)
        rows += [list(shown[part]), list(regions[part])]
        labels += ["frames", "merged"]
        numbers += [range(first, min(first + COLUMNS, len(shown))), ()]

    return _sheet(rows, labels, numbers, title, _legend(trace))


def draw_blocks(trace: Trace, title: str) -> Figure:
    """Draw some evenly spaced frames as input and after each block."""
    cell = _cell(trace, SMALL)
    chosen = evenly(len(trace.frames), COLUMNS)
    alone = list(range(len(trace.frames)))

    rows = [list(bordered(frame_tiles(trace.frames, trace.grid, cell), alone, BORDER)[chosen])]
    labels = ["input"]
    for block, held in enumerate(trace.blocks, start=1):
        # Draw all frames, then choose: a region's mean colour also counts patches in frames that are not shown.
        tiles = bordered(_regions(trace, held, cell), _groups(trace, held), BORDER)
        rows.append(list(tiles[chosen]))
        labels.append(f"block {block}\n{len(np.unique(held[held >= 0]))} tokens")

    return _sheet(rows, labels, [chosen, *([()] * len(trace.blocks))], title, _legend(trace))


def draw_grounding(trace: Trace, similarity: Heat, title: str) -> Figure:
    """Draw every frame, and below it the similarity (T, L) of a phrase with the token of each cell."""
    cell = _cell(trace, LARGE)
    groups = _groups(trace, trace.blocks[-1])
    heat, (low, high) = heat_tiles(trace.frames, similarity, trace.origins, trace.grid, cell)
    shown = bordered(frame_tiles(trace.frames, trace.grid, cell), groups, BORDER)
    heat = bordered(heat, groups, BORDER)

    rows, labels, numbers = [], [], []
    for first in range(0, len(shown), COLUMNS):
        part = slice(first, first + COLUMNS)
        rows += [list(shown[part]), list(heat[part])]
        labels += ["frames", "similarity"]
        numbers += [range(first, min(first + COLUMNS, len(shown))), ()]

    # The colour bar fits into the wider right margin.
    figure = _sheet(rows, labels, numbers, title, "outlined: the most similar token", right=120)
    width, height = figure.get_size_inches() * DPI
    bar = figure.add_axes((1 - 96 / width, BOTTOM / height, 22 / width, 1 - (TOP + BOTTOM) / height))
    figure.colorbar(ScalarMappable(Normalize(low, high), matplotlib.colormaps[HEAT]), cax=bar, label="cosine")
    return figure


def draw_similarities(trace: Trace, title: str) -> Figure:
    """Draw for each block the mean cosine of the merged pairs (dark) and of all other pairs (light)."""
    figure = Figure(figsize=(max(6.5, 2.6 + 0.75 * len(trace.blocks)), 4.4), layout="constrained")
    panel = figure.subplots()

    # Two bars for each axis that something leaves, side by side within a block's place.
    used_axes = {similarity.axis for similarity in trace.similarities}
    axes = [axis for axis in SHADES if axis in used_axes]
    width = 0.8 / (2 * len(axes))
    for place, axis in enumerate(axes):
        name, dark, light = SHADES[axis]
        found = [one for one in trace.similarities if one.axis == axis]
        left = np.array([one.block for one in found]) - 0.4 + 2 * place * width

        merged = [np.nan if one.merged is None else one.merged for one in found]
        if any(one.merged is not None for one in found):
            panel.bar(left, merged, width, align="edge", color=dark, label=f"{name}: merged")
        panel.bar(
            left + width, [one.others for one in found], width, align="edge", color=light, label=f"{name}: others"
        )

    panel.axhline(0, color="0.4", linewidth=0.8)
    panel.set_title(title, parse_math=False)  # a name may contain a $
    panel.set(xlabel="block", ylabel="mean cosine of keys", xticks=range(1, len(trace.blocks) + 1))
    panel.set_xlim(0.4, len(trace.blocks) + 0.6)
    panel.grid(visible=True, axis="y", alpha=0.3)
    panel.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def film(trace: Trace, similarity: Heat | None) -> Pixels:
    """Put every frame beside its regions and, if given, its similarities: (T, height, width, 3)."""
    cell = _cell(trace, 2 * LARGE)
    groups = _groups(trace, trace.blocks[-1])
    parts = [frame_tiles(trace.frames, trace.grid, cell), _regions(trace, trace.blocks[-1], cell)]
    if similarity is not None:
        parts.append(heat_tiles(trace.frames, similarity, trace.origins, trace.grid, cell)[0])

    beside = np.concatenate([bordered(part, groups, 2 * BORDER) for part in parts], axis=2)

    # Video encoders want even sizes: repeat the last row or column.
    height, width = beside.shape[1:3]
    return np.pad(beside, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def write_figure(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG at its own size."""
    figure.savefig(path, dpi=DPI)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` evenly spaced positions of `count`, including the first and the last."""
    return [int(position) for position in np.linspace(0, count - 1, min(count, most)).round()]


def _cell(trace: Trace, pixels: int) -> int:
    """The side of a patch, in pixels, in a tile of about `pixels`."""
    return max(4, round(pixels / max(trace.grid)))


def _groups(trace: Trace, held: NDArray[np.int64]) -> list[int]:
    return frame_groups(held) if trace.merges_frames else list(range(len(held)))


def _regions(trace: Trace, held: NDArray[np.int64], cell: int) -> Pixels:
    return region_tiles(trace.frames, held, trace.grid, cell, trace.merges_frames)


def _legend(trace: Trace) -> str:
    regions = "Patches that merged: one colour, one edge; a patch alone keeps its pixels."
    return f"{regions} Frames that merged: one border." if trace.merges_frames else regions


def _sheet(
    rows: Sequence[Sequence[Pixels]],
    labels: Sequence[str],
    numbers: Sequence[Sequence[int]],
    title: str,
    legend: str,
    right: int = RIGHT,
) -> Figure:
    """A mosaic at pixel size, with a title, a label for each row and frame numbers in the corners of the tiles."""
    pixels = mosaic(rows, GAP)
    step_down, step_right = rows[0][0].shape[0] + GAP, rows[0][0].shape[1] + GAP
    height, width = pixels.shape[0] + TOP + BOTTOM, pixels.shape[1] + LEFT + right
    width = max(width, LEFT + right + 620)  # the title and the legend stay whole

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    panel = figure.add_axes(
        (LEFT / width, BOTTOM / height, pixels.shape[1] / width, pixels.shape[0] / height), frameon=False
    )

    panel.imshow(pixels, interpolation="nearest", aspect="auto")
    panel.set(xticks=[])
    panel.set_yticks([row * step_down + (step_down - GAP) / 2 for row in range(len(rows))], labels, fontsize=10)
    panel.tick_params(length=0)

    for row, of_row in enumerate(numbers):
        for column, number in enumerate(of_row):
            _number(panel, column * step_right, row * step_down, number)

    figure.text(LEFT / width, 1 - 30 / height, title, fontsize=14, va="center", parse_math=False)
    figure.text(LEFT / width, 1 - 62 / height, legend, fontsize=10, color="0.35", va="center")
    return figure


def _number(panel: Axes, left: float, top: float, number: int) -> None:
    box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.5}
    panel.text(left + BORDER + 4, top + BORDER + 4, str(number + 1), fontsize=8, va="top", bbox=box)
