"""A folder of small classified videos that can be told apart by colour, with groups and splits."""

import csv
from pathlib import Path

import numpy as np

from tests.videos import write_video

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def write_labelled(root: Path, per_class: int = 4, tests: int = 1, table: bool = True, seed: int = 3) -> Path:
    """Write `class/N.mp4` for each colour, the last `tests` of each class in the split test; returns `root`."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, colour in COLOURS.items():
        for number in range(per_class):
            file = f"{name}/{number}.mp4"
            noise = rng.integers(-25, 26, (8, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
            write_video(root / file, np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))
            split = "test" if number >= per_class - tests else "train"
            rows.append([file, name, f"{name}{number // 2}", split])
    if table:
        with (root / "labels.csv").open("w", newline="") as file_of_rows:
            csv.writer(file_of_rows).writerows([["file", "label", "group", "split"], *rows])
    return root
