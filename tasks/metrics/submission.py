"""Submissions to the Condensed Movies challenge: scores of all texts and videos of a test set with secret pairs."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MATRIX = "sim_matrix_test.npy"


def with_all_videos(t2v: NDArray, v2t: NDArray, columns: list[int], num_videos: int) -> tuple[NDArray, NDArray]:
    """Expand the scores of the videos in `columns` to (texts, `num_videos`) and (`num_videos`, texts).

    All other videos get the same score, below every given one.
    """
    complete = np.full((len(t2v), num_videos), t2v.min() - 1)
    complete[:, columns] = t2v
    turned = np.full((num_videos, len(t2v)), v2t.min() - 1)
    turned[columns] = v2t
    return complete, turned


def write_array(scores: NDArray, path: Path) -> None:
    """Write scores as float32 in NumPy's format, to exactly this file name."""
    with path.open("wb") as file:
        np.save(file, scores.astype(np.float32))


def write_zip(t2v: NDArray, path: Path) -> None:
    """Write the challenge's submission: `sim_matrix_test.npy`, scores (texts, videos), in a zip file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(MATRIX, "w") as file:
        np.save(file, t2v.astype(np.float32))
