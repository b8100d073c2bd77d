"""Embeddings of the videos of a set, kept on disk: what is encoded once is not encoded again, even after a kill.

A folder is of one model, one input and one set of videos: its name is the digest of all three. It holds files of rows,
each written under a temporary name and renamed. Any number of processes may write, and any other number may read.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from configs.load import to_dict
from configs.schema import RunConfig
from datasets.video_text import VideoTextDataset
from engine.distributed import barrier, gather_objects, rank
from tasks.annotations import Split, digest_of
from tasks.base import VideoTextTask
from tasks.clips import embed_clip

ROWS_A_FILE = 256


class FeatureCache:
    """The embeddings (V, E) of the videos of a split, as far as they are on disk.

    Args:
        folder: of all caches; this one gets a folder in it.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder / key
        self._pending: dict[int, NDArray] = {}

    def read(self) -> dict[int, NDArray]:
        """The embeddings by position; a file that cannot be read counts as not written."""
        found: dict[int, NDArray] = {}
        for path in sorted(self.folder.glob("*.npz")):
            try:
                with np.load(path, allow_pickle=False) as stored:
                    positions, rows = stored["positions"], stored["rows"]
            except (OSError, ValueError, KeyError, BadZipFile):
                continue
            found.update(zip(positions.tolist(), rows, strict=True))
        return found

    def add(self, positions: Sequence[int], rows: NDArray) -> None:
        """Keep the embeddings (B, E) of the videos at `positions`; they are on disk after the next `flush`."""
        self._pending.update(zip(positions, rows, strict=True))
        if len(self._pending) >= ROWS_A_FILE:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet."""
        if not self._pending:
            return
        positions = sorted(self._pending)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{positions[0]:09d}_{len(positions)}_{rank()}.npz"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.savez(file, positions=np.array(positions), rows=np.stack([self._pending[place] for place in positions]))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        self._pending.clear()


def cached_embeddings(
    task: VideoTextTask,
    split: Split,
    make_data: Callable[[list[Any]], VideoTextDataset],
    folder: Path,
    batch_size: int,
    failed: list[dict[str, Any]],
) -> tuple[list[int], NDArray]:
    """The positions of the readable videos of a split, ascending, and their embeddings (V, E).

    Only videos without an embedding on disk are encoded. `make_data` makes the samples of some records. What this
    process cannot read is added to `failed`.
    """
    cache = FeatureCache(folder, cache_key(task, split))
    # Every process has to see the same files before one writes more.
    done = cache.read()
    done = gather_objects(done if rank() == 0 else None)[0]
    missing = [position for position in range(len(split.present)) if position not in done]

    if missing:
        data = make_data([split.present[position] for position in missing])
        for places, clip in task.each_clip(data, batch_size, failed):
            rows = embed_clip(task.model, clip).float().cpu().numpy()
            cache.add([missing[place] for place in places], rows)
        cache.flush()
        barrier()
        done = gather_objects(cache.read() if rank() == 0 else None)[0]

    positions = sorted(done)
    return positions, np.stack([done[position] for position in positions]) if positions else np.zeros((0, 1))


def cache_key(task: VideoTextTask, split: Split) -> str:
    """What embeddings depend on: weights, input, aggregation, precision, and the videos in their order."""
    digest = hashlib.sha256()
    for name, tensor in task.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    digest.update(json.dumps(settings_of(task.config)).encode())
    digest.update(digest_of(task.config, split).encode())
    return digest.hexdigest()[:32]


def settings_of(config: RunConfig) -> dict[str, Any]:
    """The settings that embeddings depend on besides the weights."""
    settings = to_dict(config)
    return {name: settings[name] for name in ("model", "video", "aggregation")} | {
        "precision": settings["train"]["precision"]
    }
