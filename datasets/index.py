"""Indices on disk: a file of millions of pairs is parsed once into arrays, which every process then maps.

The index lies beside its source file as `FILE.index/`, or, if nothing can be written there, in the user's cache folder.
It is valid while the source file, and the shards it names, keep their sizes and modification times. If one of them
changes, or the index is incomplete, it is rebuilt, and the log says so.
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
from datasets.cache_home import cache_home
from datasets.digest import TableDigest
from datasets.pairs import COLUMNS, META, PairTable, encode
from datasets.remote.addresses import Folder, is_address, shown
from datasets.remote.fetch import look_at_all
from datasets.remote.streams import RemoteError

logger = logging.getLogger(__name__)
FORMAT = 3
"""Raise it when the arrays change, or when a parser reads a file differently: older indices are then rebuilt."""

ROWS_AT_ONCE = 1 << 16
TABLE = "table"
ABANDONED = 24 * 3600
"""Seconds after which an unfinished index counts as left behind by a process that died."""


def open_table(path: Path, parse: RowParser, media: Folder, shards: Sequence[str] = (), kind: str = "") -> PairTable:
    """Map the pairs of a file from its index; build the index first if there is none.

    `shards` are the files that `path` names: the index is rebuilt when one of them changes, too. A `kind` of rows has
    an index of its own, so that nobody takes timed words for captions.

    Several processes may call this at once: one builds, the others wait for it. ValueError if `parse` raises it, if
    the file holds no pair, or if no index can be written.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; data.sources and data.manifest name files, relative ones in data.root")

    # Read before writing: an index may lie in either folder.
    name = f"{path.name}.{kind}" if kind else path.name
    folders = (path.with_name(f"{name}.index"), _cache_folder(path, name))
    for folder in folders:
        table = _try_open(folder, path, media, shards)
        if table is not None:
            return table

    # Build it in the first folder that takes files.
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


def _stamp(path: Path, shards: Sequence[str]) -> dict[str, Any]:
    """The state of the files that an index was built from; another stamp means that the index is out of date."""
    status = path.stat()
    stamp = {"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "format": FORMAT}
    if shards:
        stamp["shards"] = hashlib.sha256(json.dumps(shard_states(path, shards)).encode()).hexdigest()
    return stamp


def shard_states(path: Path, shards: Sequence[str]) -> list[tuple[int, int]]:
    """The size of each shard that a file names, and a number that changes with it; ValueError if one is not there."""
    elsewhere = [shard for shard in shards if is_address(shard)]
    found = dict(zip(elsewhere, look_at_all(elsewhere), strict=True))

    states = []
    for shard in shards:
        state = found.get(shard)
        if isinstance(state, RemoteError):
            raise ValueError(f"{path}: {shown(shard)} cannot be read: {state}")
        if state is None:
            try:
                status = os.stat(shard)
            except OSError as error:
                raise ValueError(f"{path}: {shard} cannot be read ({error.strerror}); get it again") from None
            states.append((status.st_size, status.st_mtime_ns))
        else:
            states.append((state.size, state.version))
    return states


def _cache_folder(path: Path, name: str) -> Path:
    return cache_home() / f"{name}-{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]}.index"


def _try_open(folder: Path, path: Path, media: Folder, shards: Sequence[str]) -> PairTable | None:
    """The table of an index that is complete and up to date, else None; the log says why an index is not used."""
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
    """Hold the lock of a folder. The kernel releases it when the process ends, even if it is killed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        # Some network file systems have no locks: then each process builds its own index, and the last one stays.
        logger.warning("%s: files cannot be locked there (%s)", folder, error)
    yield


def _build(path: Path, parse: RowParser, folder: Path, shards: Sequence[str]) -> None:
    """Write the index of a file under a temporary name, then rename it, so that no process ever sees half of one."""
    begun, stamp = time.monotonic(), _stamp(path, shards)
    new = folder / f"building-{os.uname().nodename}-{os.getpid()}"

    # Remove what killed processes left behind, but only if it is old: without locks, another may still be building.
    for left in folder.glob("building-*"):
        if time.time() - left.stat().st_mtime > ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
    old = new.with_name(f"{new.name}-old")
    for left in (new, old):  # process ids are reused
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

        # A folder cannot replace another in one step: move the old index away, then the new one into its place.
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
    """The arrays of an index while they grow: the rows not written yet, and the lengths already written.

    A video without a caption that has words is skipped and counted in `left_out`.
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
        # The rows of one shard follow each other, so its name is stored once.
        if place.shard != self.last_shard:
            self.last_shard = place.shard
            self.shards.append(encode(place.shard))
            self.shard_states.append(place.shard_state)
            self.num_shards += 1
        self.members.append((self.num_shards - 1, place.offset, place.size))

    def write(self) -> None:
        """Append the gathered rows to the files and forget them."""
        # Strings of all rows stand back to back in one array of bytes; a second array says where each ends.
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
    """Parse a file into the arrays of an index, `ROWS_AT_ONCE` rows at a time."""
    with path.open("rb") as file, _opened(folder) as files:
        columns = _Columns(files)
        # disable=None: show a bar only in a terminal.
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
    """Open a file for each array, by the name of the array; all are closed at the end."""
    files = {name: (folder / f"{name}.bin").open("wb") for name in COLUMNS}
    try:
        yield files
    finally:
        for file in files.values():
            file.close()
