"""The confusion matrix as a picture and as a table; rows are the true classes, columns the predicted ones."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MOST_NUMBERS = 30
"""The most classes whose counts are written into their cells."""
MOST_NAMES = 120
"""The most classes whose names stand beside the matrix."""


def draw_confusion(counts_CC: NDArray, classes: Sequence[str], title: str, path: Path) -> None:
    """Write a PNG; colours are shares of each row, numbers are counts of videos."""
    from matplotlib.figure import Figure  # which takes most of a second to import, and evaluation starts without it

    num_classes = len(classes)
    shares = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    side = min(max(4.5, 0.32 * num_classes), 24)
    figure = Figure(figsize=(side + 2.5, side + 2), dpi=100, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)

    axes.set_title(f"{title}: {int(counts_CC.diagonal().sum())} of {int(counts_CC.sum())} videos right")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if num_classes <= MOST_NAMES:
        size = 9 if num_classes <= MOST_NUMBERS else 6
        axes.set_xticks(range(num_classes), classes, rotation=90, fontsize=size)
        axes.set_yticks(range(num_classes), classes, fontsize=size)

    if num_classes <= MOST_NUMBERS:
        for row, column in np.argwhere(counts_CC):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts_CC[row, column]), ha="center", va="center", color=colour, fontsize=8)
    figure.savefig(path, format="png")


def write_confusion(counts_CC: NDArray, classes: Sequence[str], path: Path) -> None:
    """Write the counts as CSV, a line a true class."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["true", *classes])
        for name, row in zip(classes, counts_CC.tolist(), strict=True):
            writer.writerow([name, *row])
