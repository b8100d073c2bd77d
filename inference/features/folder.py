"""The folder that features are written to, by several processes and in several runs, and never half.

extraction.json           what the features are of: source, checkpoint, settings
parts/                    what is encoded and not yet in its place: arrays of some clips each, and their .jsonl
features/embeddings.npy   (V, E) float32, unit length
features/tokens.npy       (V, N, D), with --tokens
features/index.jsonl      a line a row: row, video, start, end, size and mtime_ns of the file
features/SHA256SUMS       of these files
failed.jsonl              what could not be read in the last run, and why; the next one tries it again
"""

import json
import shutil
import time
import uuid
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from configs.load import differences
from configs.sizes import format_bytes
from engine.checkpoint_folder import find_folder, read_json, replacing_file, replacing_folder, write_json, write_lines
from inference.features.sources import Clip

EXTRACTION, PARTS, FEATURES, INDEX, FAILED = "extraction.json", "parts", "features", "index.jsonl", "failed.jsonl"
PART_BYTES, PART_SECONDS = 64 * 2**20, 30.0
"""A part is written when it is so large or so old: what a run that is ended loses at most."""
ROWS_AT_ONCE = 256


class Place(NamedTuple):
    """Where a clip's features lie: the path of the arrays without their names, and the row in them."""

    prefix: str
    row: int


class FeatureFolder:
    """What is in the folder `out`; the methods but `begin` and `finish` are for all processes.

    Args:
        arrays: the names of what is kept of each clip, of `embeddings` and `tokens`.
    """

    def __init__(self, out: Path, arrays: tuple[str, ...]) -> None:
        self.out, self.arrays = out, arrays

    def begin(self, extraction: dict[str, Any]) -> None:
        """Note what the features are of; ValueError, naming it, if those that are there are of something else."""
        noted = self.out / EXTRACTION
        if not noted.is_file():
            strange = sorted(path.name for path in self.out.iterdir() if not path.name.startswith("."))
            if strange:
                raise ValueError(f"{self.out}: holds {strange[0]}, but no {EXTRACTION}; name a new folder")
            write_json(noted, extraction)
        found = differences(_compared(read_json(noted)), _compared(extraction))
        if found:
            raise ValueError(
                f"{self.out}: holds other features than asked for ({'; '.join(found)}); name another folder"
            )
        whole = find_folder(self.out / FEATURES)
        if whole is not None:
            whole.rename(self.out / FEATURES)  # of a run that was killed before it put the new ones into their place

    def places(self) -> dict[Clip, Place]:
        """Where the features of each clip are that has any."""
        whole = self.out / FEATURES
        lists = [(whole / INDEX, f"{whole}/")] if whole.exists() else []
        lists += [(path, f"{path.with_suffix('')}.") for path in sorted((self.out / PARTS).glob("*.jsonl"))]
        found: dict[Clip, Place] = {}
        for path, prefix in lists:
            found.update((clip, Place(prefix, row)) for row, clip in enumerate(read_clips(path)))
        return found

    def finish(self, clips: list[Clip], reasons: dict[str, str]) -> list[dict[str, Any]]:
        """Put the features of `clips`, in their order, into one place; returns the lines of those without any.

        `reasons` says of a file why it could not be read. What is of other clips, or of earlier states of their files,
        is left out.
        """
        places = self.places()
        kept = [clip for clip in clips if clip in places]
        failed = [{**clip.row, "reason": reasons[clip.video]} for clip in clips if clip not in places]
        if kept and [clip for clip, place in places.items() if place.prefix.endswith("/")] != kept:
            self._merge(kept, [places[clip] for clip in kept])
        shutil.rmtree(self.out / PARTS, ignore_errors=True)
        with replacing_file(self.out / FAILED) as temporary:
            write_lines(failed, temporary)
        return failed

    def _merge(self, clips: list[Clip], places: list[Place]) -> None:
        rows_of: dict[str, list[int]] = {}
        for row, place in enumerate(places):
            rows_of.setdefault(place.prefix, []).append(row)
        with replacing_folder(self.out / FEATURES) as folder:
            for name in self.arrays:
                whole: np.memmap | None = None
                for prefix, rows in tqdm(rows_of.items(), desc=name, unit="part", disable=None, leave=False):
                    part = np.load(f"{prefix}{name}.npy", mmap_mode="r")
                    if whole is None:
                        shape = (len(clips), *part.shape[1:])
                        self._check_room(part[0].nbytes * len(clips))
                        whole = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", part.dtype, shape)
                    for first in range(0, len(rows), ROWS_AT_ONCE):
                        some = rows[first : first + ROWS_AT_ONCE]
                        whole[some] = part[[places[row].row for row in some]]
                assert whole is not None, "there are clips"
                whole.flush()
            write_lines(({"row": row, **clip.row} for row, clip in enumerate(clips)), folder / INDEX)

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.out).free
        if free < needed:
            raise ValueError(
                f"{self.out}: the features need {format_bytes(needed)} more and only {format_bytes(free)} are free; "
                "make room and give the same command"
            )


class PartWriter:
    """Gathers the features of one process, and writes them to the folder part by part; a context manager."""

    def __init__(self, folder: FeatureFolder) -> None:
        self.parts, self.arrays = folder.out / PARTS, folder.arrays
        self._clips: list[Clip] = []
        self._batches: list[dict[str, NDArray]] = []
        self._begun = time.monotonic()

    def add(self, clips: list[Clip], features: dict[str, NDArray]) -> None:
        """Keep the rows of each array, one a clip."""
        self._clips += clips
        self._batches.append(features)
        held = sum(array.nbytes for batch in self._batches for array in batch.values())
        if held >= PART_BYTES or time.monotonic() - self._begun >= PART_SECONDS:
            self.write()

    def write(self) -> None:
        """Put what is gathered on the disk; it counts once its .jsonl is there."""
        if self._clips:
            self.parts.mkdir(exist_ok=True)
            part = self.parts / uuid.uuid4().hex
            for name in self.arrays:
                with replacing_file(Path(f"{part}.{name}.npy")) as temporary, temporary.open("wb") as file:
                    np.save(file, np.concatenate([batch[name] for batch in self._batches]))
            with replacing_file(Path(f"{part}.jsonl")) as temporary:
                write_lines((clip.row for clip in self._clips), temporary)
        self._clips, self._batches, self._begun = [], [], time.monotonic()


def read_clips(path: Path) -> list[Clip]:
    """What each row is of, as an index.jsonl, or a part's, says it."""
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Clip(*(record[item.name] for item in fields(Clip))) for record in records]


def read_failed(out: Path) -> list[dict[str, Any]]:
    """What the last run could not read: a line a clip, with its `reason`; none where no run has ended yet."""
    path = out / FAILED
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _compared(extraction: dict[str, Any]) -> dict[str, Any]:
    """What has to be equal: weights may have been moved, but not changed."""
    return {name: value for name, value in extraction.items() if name != "checkpoint"}
