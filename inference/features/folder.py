"""The folder that holds features; several processes and runs can write to it, and no write is left half done.

extraction.json           where the features come from: source, checkpoint, settings
parts/                    features not yet merged: arrays of some clips each, and their .jsonl
features/embeddings.npy   (V, E) float32, unit length
features/tokens.npy       (V, N, D), with --tokens
features/index.jsonl      a line a row: row, video, start, end, size and mtime_ns of the file
features/SHA256SUMS       checksums of these files
parquet/                  the embeddings once more, with --parquet: `inference/features/parquet.py`
failed.jsonl              what the last run could not read, and why; the next run tries again
job/                      while processes share the work (`inference/features/sharing.py`): what is whose
"""

import json
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from configs.load import differences
from configs.sizes import format_bytes
from engine.checkpoint_folder import find_folder, read_json, replacing_file, replacing_folder, write_json, write_lines
from inference.features.parquet import arrow, write_parquet
from inference.features.sources import WRITTEN, Clip

EXTRACTION, PARTS, FEATURES, INDEX, FAILED = "extraction.json", "parts", "features", "index.jsonl", "failed.jsonl"
JOB, PARQUET = "job", "parquet"
PART_BYTES, PART_SECONDS = 64 * 2**20, 30.0
"""A part is written at this size or age: the most that a killed run loses."""
ROWS_AT_ONCE = 256


class Place(NamedTuple):
    """Where a clip's features are: the path prefix of the arrays, and the row in them."""

    prefix: str
    row: int


class FeatureFolder:
    """The feature folder `out`; any process may call its methods, except `begin` and `finish`.

    Args:
        arrays: the names of the arrays kept for each clip: `embeddings`, `tokens`, or both.
        parquet: keep the embeddings as Parquet too. A folder that has them already keeps them up to date.
    """

    def __init__(self, out: Path, arrays: tuple[str, ...], parquet: bool = False) -> None:
        self.out, self.arrays = out, arrays
        self.parquet = parquet or (out / PARQUET).is_dir()
        if self.parquet:
            arrow()  # not only at the end
            if "embeddings" not in arrays:
                raise ValueError("--parquet: holds embeddings, and this checkpoint has none; leave it out")

    def begin(self, extraction: dict[str, Any]) -> None:
        """Record where the features come from; ValueError, naming what differs, if existing ones do not match."""
        self.check_ours()
        noted = self.out / EXTRACTION
        if not noted.is_file():
            write_json(noted, extraction)
        self.check(extraction)
        self.restore()

    def restore(self) -> None:
        """Bring back the features that a run which was killed while replacing them left under a temporary name."""
        finished_folder = find_folder(self.out / FEATURES)
        if finished_folder is not None:
            finished_folder.rename(self.out / FEATURES)

    def check_ours(self) -> None:
        """ValueError if the folder holds something, but no features."""
        if self.out.is_dir() and not (self.out / EXTRACTION).is_file():
            strange = sorted(path.name for path in self.out.iterdir() if not path.name.startswith((".", JOB)))
            if strange:
                raise ValueError(f"{self.out}: holds {strange[0]}, but no {EXTRACTION}; name a new folder")

    def check(self, extraction: dict[str, Any]) -> None:
        """ValueError, naming what differs, if the features are others than these."""
        found = differences(_compared(read_json(self.out / EXTRACTION)), _compared(extraction))
        if found:
            raise ValueError(
                f"{self.out}: holds other features than asked for ({'; '.join(found)}); name another folder"
            )

    def check_nobody_shares(self) -> None:
        """ValueError if processes share the work, or have left it half done."""
        if (self.out / JOB).exists():
            raise ValueError(
                f"{self.out}: is being filled by several processes; give --engine hosts to join them or to end what "
                f"they began, or remove {self.out / JOB} if none is at work any more"
            )

    def places(self) -> dict[Clip, Place]:
        """Where the features of each encoded clip are."""
        finished_folder = self.out / FEATURES
        lists = [(finished_folder / INDEX, f"{finished_folder}/")] if finished_folder.exists() else []
        lists += [(path, f"{path.with_suffix('')}.") for path in sorted((self.out / PARTS).glob("*.jsonl"))]
        found: dict[Clip, Place] = {}
        for path, prefix in lists:
            found.update((clip, Place(prefix, row)) for row, clip in enumerate(read_clips(path)))
        return found

    def finish(
        self, clips: list[Clip], reasons: dict[str, str], before_replacing: Callable[[], None] = lambda: None
    ) -> None:
        """Merge the features of `clips`, in order, into one folder, and list the clips without features.

        `reasons` says why a file could not be read, by path. Features of other clips, or of earlier versions of a file,
        are dropped. `before_replacing` is called last before the folder changes; its errors leave it as it is.
        """
        places = self.places()
        kept = [clip for clip in clips if clip in places]
        failed = [{**clip.row, "reason": reasons[clip.video]} for clip in clips if clip not in places]

        # Merge only if the merged arrays do not already hold exactly these clips in this order.
        is_merged = [clip for clip, place in places.items() if place.prefix.endswith("/")] == kept
        if kept and not is_merged:
            self._merge(kept, [places[clip] for clip in kept], before_replacing)
            shutil.rmtree(self.out / PARQUET, ignore_errors=True)
        if kept and self.parquet and not (self.out / PARQUET).is_dir():
            embeddings = np.load(self.out / FEATURES / "embeddings.npy", mmap_mode="r")
            write_parquet(kept, embeddings, self.out / PARQUET)

        # Besides the parts, remove what a merge that was killed has left.
        stale = [path for name in (FEATURES, PARQUET) for path in self.out.glob(f"{name}.*.*")]
        for left_over in (self.out / PARTS, *stale):
            shutil.rmtree(left_over, ignore_errors=True)
        with replacing_file(self.out / FAILED) as temporary:
            write_lines(failed, temporary)

    def shapes(self) -> dict[str, list[int]]:
        """The shape of each array, a row a clip."""
        return {name: list(np.load(self.out / FEATURES / f"{name}.npy", mmap_mode="r").shape) for name in self.arrays}

    def _merge(self, clips: list[Clip], places: list[Place], before_replacing: Callable[[], None]) -> None:
        rows_of: dict[str, list[int]] = {}
        for row, place in enumerate(places):
            rows_of.setdefault(place.prefix, []).append(row)

        # Copy part by part, through memory maps, so that the features never have to fit in memory.
        temporary = self.out / f"{FEATURES}.{uuid.uuid4().hex}.tmp"
        with replacing_folder(self.out / FEATURES, temporary=temporary) as folder:
            for name in self.arrays:
                array: np.memmap | None = None
                for prefix, rows in tqdm(rows_of.items(), desc=name, unit="part", disable=None, leave=False):
                    part = np.load(f"{prefix}{name}.npy", mmap_mode="r")
                    if array is None:
                        shape = (len(clips), *part.shape[1:])
                        self._check_room(part[0].nbytes * len(clips))
                        array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", part.dtype, shape)

                    for first in range(0, len(rows), ROWS_AT_ONCE):
                        some = rows[first : first + ROWS_AT_ONCE]
                        array[some] = part[[places[row].row for row in some]]

                assert array is not None, "there are clips"
                array.flush()

            write_lines(({"row": row, **clip.row} for row, clip in enumerate(clips)), folder / INDEX)
            before_replacing()

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.out).free
        if free < needed:
            raise ValueError(
                f"{self.out}: the features need {format_bytes(needed)} more and only {format_bytes(free)} are free; "
                "make room and give the same command"
            )


class PartWriter:
    """Gathers the features of one process and writes them to the folder part by part."""

    def __init__(self, folder: FeatureFolder) -> None:
        self.parts, self.arrays = folder.out / PARTS, folder.arrays
        self._clips: list[Clip] = []
        self._batches: list[dict[str, NDArray]] = []
        self._begun = time.monotonic()

    def add(self, clips: list[Clip], features: dict[str, NDArray]) -> bool:
        """Gather features, one row per clip in each array; writes a part when it is large or old enough.

        Returns whether all that was added has been written.
        """
        self._clips += clips
        self._batches.append(features)
        held = sum(array.nbytes for batch in self._batches for array in batch.values())
        if held >= PART_BYTES or time.monotonic() - self._begun >= PART_SECONDS:
            self.write()
        return not self._clips

    def write(self) -> None:
        """Write the gathered features as a part; it becomes valid when its .jsonl is written, last."""
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
    """The clip of each row, from index.jsonl or from a part's .jsonl."""
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Clip(*(record[name] for name in WRITTEN)) for record in records]


def read_failed(out: Path) -> list[dict[str, Any]]:
    """What the last run could not read, one entry a clip with its `reason`; empty if no run has finished yet."""
    path = out / FAILED
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _compared(extraction: dict[str, Any]) -> dict[str, Any]:
    """The entries that must be equal: the checkpoint may have moved, but its weights may not change."""
    return {name: value for name, value in extraction.items() if name != "checkpoint"}
