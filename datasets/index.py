"""Indices on disk: a file of millions of pairs is parsed once, and every process maps the arrays that came of it.

An index lies beside its file as `FILE.index/`, or, where nothing can be written there, in the user's cache folder. It
counts for the size and the time of change its file, and others that belong to it, had; another state of them, or an
index that is not whole, is built anew, and said.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from datasets.annotations.source_rows import Place, RowParser, SourceRow
from datasets.digest import TableDigest
from datasets.pairs import COLUMNS, META, PairTable, encode

logger = logging.getLogger(__name__)
FORMAT = 3
"""Changes when the arrays do, or what a parser makes of a file."""

ROWS_AT_ONCE = 1 << 16
TABLE = "table"
ABANDONED = 24 * 3600
"""Seconds after which what was being built is no longer."""


def open_table(path: Path, parse: RowParser, media: Path, shards: Sequence[Path] = ()) -> PairTable:
    """The pairs of a file, mapped from its index, which is built if there is none.

    `shards` are the files it speaks of whose state matters too.

    Several processes may ask at once: one builds, the others wait for it. ValueError as `parse` raises it, for a file
    without a pair, and where no index can be written.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; data.sources and data.manifest name files, relative ones in data.root")
    folders = (path.with_name(f"{path.name}.index"), _cache_folder(path))
    for folder in folders:
        table = _try_open(folder, path, media, shards)
        if table is not None:
            return table
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / "lock").open("ab")
        except OSError as error:
            logger.info("%s: no index there (%s)", folder, error)
            continue
        with lock, _locked(lock, folder):
            table = _try_open(folder, path, media, shards)  # another process may have built it meanwhile
            if table is None:
                _build(path, parse, folder, shards)
                table = PairTable.open(folder / TABLE, _stamp(path, shards), str(media.absolute()))
        return table
    raise ValueError(
        f"{path}: no index can be written to {folders[0]} or {folders[1]}; set XDG_CACHE_HOME to a folder with room"
    )


def _stamp(path: Path, shards: Sequence[Path]) -> dict[str, Any]:
    """What an index is of."""
    status = path.stat()
    stamp = {"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "format": FORMAT}
    if shards:
        stamp["shards"] = hashlib.sha256(json.dumps([_state(path, shard) for shard in shards]).encode()).hexdigest()
    return stamp


def _state(path: Path, shard: Path) -> tuple[int, int]:
    try:
        status = shard.stat()
    except OSError as error:
        raise ValueError(f"{path}: {shard} cannot be read ({error.strerror}); get it again") from None
    return status.st_size, status.st_mtime_ns


def _cache_folder(path: Path) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "testa" / f"{path.name}-{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]}.index"


def _try_open(folder: Path, path: Path, media: Path, shards: Sequence[Path]) -> PairTable | None:
    """The table of an index if it is there and whole and of the file as it is; says why if it is not."""
    if not (folder / TABLE).is_dir():
        return None
    stamp = _stamp(path, shards)
    try:
        return PairTable.open(folder / TABLE, stamp, str(media.absolute()))
    except ValueError as error:
        logger.warning("%s: %s; indexing it again", path, error)
        return None


@contextmanager
def _locked(lock: BinaryIO, folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; it ends with the process, however that ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        # Then several processes may build, each its own, and the last one's stays.
        logger.warning("%s: files cannot be locked there (%s)", folder, error)
    yield


def _build(path: Path, parse: RowParser, folder: Path, shards: Sequence[Path]) -> None:
    """Write the index of a file beside its place and rename it into that."""
    begun, stamp = time.monotonic(), _stamp(path, shards)
    new = folder / f"building-{os.uname().nodename}-{os.getpid()}"
    for left in folder.glob("building-*"):  # by a process that was killed; where locks do nothing one may be at it
        if time.time() - left.stat().st_mtime > ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
    old = new.with_name(f"{new.name}-old")
    for left in (new, old):  # numbers of processes come again
        shutil.rmtree(left, ignore_errors=True)
    try:
        new.mkdir()
        writer = _write_columns(path, parse, new)
        if not writer.num_texts:
            raise ValueError(
                f"{path}: no pair in it ({writer.left_out} without words); check that it is the right file"
            )
        if _stamp(path, shards) != stamp:
            raise ValueError(f"{path}: changed while it was read; start again when it is complete")
        meta = {
            "stamp": stamp,
            "lengths": writer.lengths,
            "left_out": writer.left_out,
            "digest": writer.digest.hexdigest(),
        }
        (new / META).write_text(json.dumps(meta))
        with suppress(FileNotFoundError):
            (folder / TABLE).rename(old)
        new.rename(folder / TABLE)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ValueError(f"{path}: its index cannot be written to {folder} ({error}); make room there") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    seconds = time.monotonic() - begun
    logger.info("%s: indexed %d pairs in %.0f s, %d rows left out", path, writer.num_texts, seconds, writer.left_out)


@dataclass
class _Columns:
    """The arrays of an index as they grow: what of them is not written yet, and how much is.

    A video none of whose captions has words is left out and counted.
    """

    files: dict[str, BufferedWriter]

    def __post_init__(self) -> None:
        self.lengths = dict.fromkeys(COLUMNS, 0)
        self.digest = TableDigest()
        self.num_videos, self.num_texts, self.left_out = 0, 0, 0
        self.num_shards, self.last_shard = 0, ""
        self._clear()

    def _clear(self) -> None:
        self.paths: list[bytes] = []
        self.texts: list[bytes] = []
        self.text_video: list[int] = []
        self.spans: list[tuple[float | None, float | None]] = []
        self.members: list[tuple[int, int, int]] = []
        self.shards: list[bytes] = []
        self.shard_states: list[tuple[int, int]] = []

    def add(self, row: SourceRow) -> None:
        """Add one row of a file."""
        if not row.captions:
            self.left_out += 1
            return
        self.paths.append(encode(row.video))
        self.spans.append((row.start, row.end))
        if row.place is not None:
            self._add_place(row.place)
        for text in row.captions:
            self.texts.append(encode(text))
            self.text_video.append(self.num_videos)
        self.num_videos += 1
        self.num_texts += len(row.captions)
        if len(self.paths) >= ROWS_AT_ONCE:
            self.write()

    def _add_place(self, place: Place) -> None:
        if place.shard != self.last_shard:
            self.last_shard = place.shard
            self.shards.append(encode(place.shard))
            self.shard_states.append(place.shard_state)
            self.num_shards += 1
        self.members.append((self.num_shards - 1, place.offset, place.size))

    def write(self) -> None:
        """Write what has gathered."""
        for name, strings in (("path", self.paths), ("text", self.texts), ("shard", self.shards)):
            ends = self.lengths[f"{name}_bytes"] + np.cumsum([len(item) for item in strings], dtype=np.int64)
            self._append(f"{name}_bytes", np.frombuffer(b"".join(strings), np.uint8))
            self._append(f"{name}_ends", ends)
        self._append("text_video", np.array(self.text_video, np.int64))
        self._append("spans", np.array(self.spans, np.float64).ravel())  # None: nan
        self._append("members", np.array(self.members, np.int64).ravel())
        self._append("shard_states", np.array(self.shard_states, np.int64).ravel())
        self._clear()

    def _append(self, name: str, values: np.ndarray) -> None:
        assert values.dtype == COLUMNS[name], (name, values.dtype)
        self.files[name].write(values.tobytes())
        self.digest.update(name, values)
        self.lengths[name] += len(values)


def _write_columns(path: Path, parse: RowParser, folder: Path) -> _Columns:
    """Parse a file into the arrays of an index, a piece at a time."""
    with path.open("rb") as file, _opened(folder) as files:
        columns = _Columns(files)
        # disable=None: no bar where the output is no terminal
        with tqdm(
            total=path.stat().st_size, desc=f"indexing {path.name}", unit="B", unit_scale=True, disable=None
        ) as bar:
            for number, row in enumerate(parse(path, file)):
                columns.add(row)
                if number % ROWS_AT_ONCE == 0:
                    bar.update(file.tell() - bar.n)
            columns.write()
    return columns


@contextmanager
def _opened(folder: Path) -> Iterator[dict[str, BufferedWriter]]:
    """A file for each array, open for writing."""
    files = {name: (folder / f"{name}.bin").open("wb") for name in COLUMNS}
    try:
        yield files
    finally:
        for file in files.values():
            file.close()
