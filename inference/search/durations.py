"""How long each file of an index is; a file is opened once, and only its header is read."""

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
from numpy.typing import NDArray

from datasets.decode import DecodeError, seconds
from datasets.records import is_image

logger = logging.getLogger(__name__)
THREADS, FILES_AT_ONCE = 8, 4096
SIZE_FACTOR, TIME_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
"""Odd numbers that mix a file's size and modification time into the hash of its path."""


def known_durations(path_keys: NDArray, state: NDArray, duration: NDArray) -> dict[int, float]:
    """The durations (V,) in seconds by file in its state, from hashes of paths (V,), and sizes and times (V, 2)."""
    return dict(zip(_file_keys(path_keys, state).tolist(), duration.tolist(), strict=True))


def read_durations(paths: Iterable[str], path_keys: NDArray, state: NDArray, known: Mapping[int, float]) -> NDArray:
    """Seconds (V,) of each file: as `known`, or as its header says; NaN for images and where it does not say.

    Args:
        path_keys, state: hashes (V,) of the paths, and size and modification time (V, 2), -1 where a file is missing.
    """
    durations = np.full(len(state), np.nan)
    unknown: list[tuple[int, str]] = []
    for row, (path, key) in enumerate(zip(paths, _file_keys(path_keys, state).tolist(), strict=True)):
        if key in known:
            durations[row] = known[key]
        elif state[row, 0] >= 0 and not is_image(path):
            unknown.append((row, path))

    with ThreadPoolExecutor(THREADS) as pool:
        for first in range(0, len(unknown), FILES_AT_ONCE):
            rows, files = zip(*unknown[first : first + FILES_AT_ONCE], strict=True)
            durations[list(rows)] = list(pool.map(_duration, files))
    return durations


def _file_keys(path_keys: NDArray, state: NDArray) -> NDArray:
    return path_keys ^ (state[:, 0].astype(np.uint64) * SIZE_FACTOR) ^ (state[:, 1].astype(np.uint64) * TIME_FACTOR)


def _duration(path: str) -> float:
    try:
        length = seconds(path)
    except (av.FFmpegError, DecodeError, OSError, ValueError) as error:
        logger.info("%s: its length is unknown (%s)", path, error)
        return float("nan")
    return float("nan") if length is None else length
