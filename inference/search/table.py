"""What a search needs of each row of an index, in arrays that are mapped from disk: millions of rows open at once.

table/ of an index is made from `features/` by the index command, and made again when that changes:

half.npy                      (V, E) float16 copies of the embeddings, which a search scans
folder.npy, folders.*         the number of each row's folder, and the folders' paths
names.*                       the name of each row's file in its folder
span.npy                      (V, 2) start and end in seconds, NaN where not given
state.npy                     (V, 2) size and modification time in ns of the file, -1 where it was missing
duration.npy                  seconds of the whole file; NaN for images and where the file does not say
video.npy, key.npy            the number of each row's video, and a hash of its path
tag_rows.npy, tag_ends.npy    the rows with the first tag, then those with the second, ..., and where each ends
table.json                    names of the tags, margins of the copies, and the checksums of what it was made from
"""

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from datasets.annotations.manifest import Part
from datasets.pairs import PackedTexts, encode
from datasets.remote.addresses import is_address
from engine.checkpoint_folder import SUMS, find_folder, read_json, replacing_folder, write_json
from inference.features.folder import FEATURES, INDEX
from inference.features.sources import Clip
from inference.search.durations import known_durations, read_durations
from inference.search.exact import Vectors, halve

TABLE, META, HALF = "table", "table.json", "half.npy"
FORMAT = 1
"""Raise it when the arrays change: older tables are then made again."""
EMBEDDINGS = "embeddings.npy"
Tags = Mapping[Part, tuple[str, ...]]
"""The tags of a video, or of its part from start to end in seconds."""


@dataclass(frozen=True)
class VideoTable:
    """The columns of an index, a row for each embedding; a sequence of `Clip`.

    Attributes:
        folders, names: paths of the folders, and the name (V) of each row's file in its folder.
        folder_of_row: (V,) which of `folders` each row's file lies in.
        span: (V, 2) start and end in seconds, NaN where not given. state: (V, 2) size, and modification time in ns; -1
            where the file was missing.
        duration: (V,) seconds of the whole file, NaN where unknown.
        video_of_row: (V,) the number of each row's video.
        tags: the names of all tags. tag_rows, tag_ends: the rows of the first tag, then of the second and so on, and
            where each ends.
    """

    folders: PackedTexts
    names: PackedTexts
    folder_of_row: NDArray
    span: NDArray
    state: NDArray
    duration: NDArray
    video_of_row: NDArray
    path_key: NDArray
    tags: list[str]
    tag_rows: NDArray
    tag_ends: NDArray

    def __len__(self) -> int:
        return len(self.folder_of_row)

    def __getitem__(self, row: int) -> Clip:
        start, end = (None if np.isnan(time) else float(time) for time in self.span[row])
        size, mtime_ns = (None if value < 0 else int(value) for value in self.state[row])
        return Clip(self.path(row), start, end, size, mtime_ns)

    def __iter__(self) -> Iterator[Clip]:
        return (self[row] for row in range(len(self)))

    def path(self, row: int) -> str:
        """The path of a row's video."""
        return os.path.join(self.folders[int(self.folder_of_row[row])], self.names[row])

    def rows_of_tag(self, tag: str) -> NDArray:
        """The rows that have a tag, ascending; none if nothing has it."""
        if tag not in self.tags:
            return np.empty(0, np.int64)
        number = self.tags.index(tag)
        first = self.tag_ends[number - 1] if number else 0
        return self.tag_rows[first : self.tag_ends[number]]

    @cached_property
    def changed(self) -> NDArray:
        """When each row's file was last changed, (V,) ns since 1970; -1 if it was missing or lies at an address.

        For files elsewhere `state` holds a number that tells their versions apart, and is no time.
        """
        is_elsewhere = np.array([is_address(folder) for folder in self.folders], bool)
        if not is_elsewhere.any():
            return self.state[:, 1]
        return np.where(is_elsewhere[self.folder_of_row], -1, self.state[:, 1])

    @cached_property
    def tags_of_row(self) -> dict[int, tuple[str, ...]]:
        """The tags of each row that has any."""
        found: dict[int, tuple[str, ...]] = {}
        for tag in self.tags:
            for row in self.rows_of_tag(tag).tolist():
                found[row] = (*found.get(row, ()), tag)
        return found

    @classmethod
    def from_rows(cls, rows: Iterable[dict[str, Any]], tags: Tags, durations: Mapping[int, float] | None) -> Self:
        """The columns of rows as index.jsonl holds them, in memory.

        Args:
            tags: of the videos that have some; windows of a video have those of the video.
            durations: what is known; files that are not there are opened, unless this is None.
        """
        columns = _Columns()
        for row in rows:
            columns.add(row, tags)
        return cls(**columns.all(durations))

    @classmethod
    def from_lines(cls, path: Path, tags: Tags, durations: Mapping[int, float] | None) -> Self:
        """The same of an index.jsonl, read line by line."""
        with path.open(encoding="utf-8") as file:
            return cls.from_rows(map(json.loads, file), tags, durations)

    @classmethod
    def open(cls, folder: Path, tags: list[str]) -> Self:
        """The mapped columns that `save` wrote."""

        def column(name: str) -> NDArray:
            return np.load(folder / f"{name}.npy", mmap_mode="r")

        def texts(name: str) -> PackedTexts:
            return PackedTexts(column(f"{name}_bytes"), column(f"{name}_ends"))

        arrays = {name: column(file) for name, file in FILES.items()}
        return cls(folders=texts("folders"), names=texts("names"), tags=tags, **arrays)

    def save(self, folder: Path) -> None:
        """Write the columns, but for table.json, which makes them valid."""
        for name, file in FILES.items():
            np.save(folder / f"{file}.npy", getattr(self, name))
        for name, texts in (("folders", self.folders), ("names", self.names)):
            np.save(folder / f"{name}_bytes.npy", texts.bytes)
            np.save(folder / f"{name}_ends.npy", texts.ends)


FILES = {
    "folder_of_row": "folder",
    "span": "span",
    "state": "state",
    "duration": "duration",
    "video_of_row": "video",
    "path_key": "key",
    "tag_rows": "tag_rows",
    "tag_ends": "tag_ends",
}
"""The file of each array, without its suffix."""
KNOWN = ("path_key", "state", "duration")


class _Columns:
    """The columns of rows while they are read."""

    def __init__(self) -> None:
        self.folders: dict[str, int] = {}
        self.folder, self.span, self.state, self.keys = array("i"), array("d"), array("q"), array("Q")
        self.names, self.name_ends = bytearray(), array("q")
        self.tags: dict[str, list[int]] = {}
        self._tagged: tuple[str, tuple[str, ...]] = "", ()

    def add(self, row: dict[str, Any], tags: Tags) -> None:
        """Add a row."""
        number, video = len(self.folder), row["video"]
        above, name = os.path.split(video)
        self.folder.append(self.folders.setdefault(above, len(self.folders)))
        self.names += encode(name)
        self.name_ends.append(len(self.names))

        for time in (row["start"], row["end"]):
            self.span.append(float("nan") if time is None else time)
        for value in (row["size"], row["mtime_ns"]):
            self.state.append(-1 if value is None else value)
        self.keys.append(path_key(video))

        # A video stands before its windows, which are in no manifest.
        own = tags.get((video, row["start"], row["end"]))
        if own is not None or self._tagged[0] != video:
            self._tagged = video, own or ()
        for tag in self._tagged[1]:
            self.tags.setdefault(tag, []).append(number)

    def all(self, durations: Mapping[int, float] | None) -> dict[str, Any]:
        """All columns, by their names in `VideoTable`."""
        span = np.frombuffer(self.span, np.float64).reshape(-1, 2) if self.span else np.empty((0, 2))
        state = np.array(self.state, np.int64).reshape(-1, 2)
        keys = np.array(self.keys, np.uint64)
        _, first, video = np.unique(keys, return_index=True, return_inverse=True)

        names = PackedTexts(np.frombuffer(bytes(self.names), np.uint8), np.array(self.name_ends, np.int64))
        folders = PackedTexts.of(self.folders)
        folder = np.array(self.folder, np.int32)

        seconds = np.full(len(first), np.nan)
        if durations is not None:
            paths = (os.path.join(folders[int(folder[row])], names[row]) for row in first.tolist())
            seconds = read_durations(paths, keys[first], state[first], durations)

        tags = sorted(self.tags)
        rows = [self.tags[tag] for tag in tags]
        return {
            "folders": folders,
            "names": names,
            "folder_of_row": folder,
            "span": span,
            "state": state,
            "duration": seconds[video],
            "video_of_row": video.astype(np.int32),
            "path_key": keys,
            "tags": tags,
            "tag_rows": np.array([row for found in rows for row in found], np.int64),
            "tag_ends": np.cumsum([len(found) for found in rows], dtype=np.int64),
        }


def path_key(video: str) -> int:
    """A hash of a path, 64 bits: among ten million paths, two share one with a probability of 3 in a million."""
    return int.from_bytes(hashlib.blake2b(encode(video), digest_size=8).digest(), "little")


def made_of(features: Path) -> dict[str, Any] | None:
    """What the embeddings and index.jsonl are: their listed checksums, and their sizes; None without checksums."""
    path = features / SUMS
    if not path.is_file():
        return None
    lines = [line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines()]
    return {name: [digest, (features / name).stat().st_size] for digest, name in lines if name in (EMBEDDINGS, INDEX)}


def read_meta(folder: Path) -> dict[str, Any] | None:
    """The table.json of a folder; None if there is none, or only one of another format."""
    if not (folder / META).is_file():
        return None
    meta = read_json(folder / META)
    return meta if isinstance(meta, dict) and meta.get("format") == FORMAT else None


def open_table(index: Path, features: Path, stored: NDArray) -> tuple[VideoTable, Vectors] | None:
    """The table of an index and its embeddings as a scan reads them; None if none fits the features as they are.

    `stored` are the embeddings (V, E).
    """
    folder = find_folder(index / TABLE)
    meta = None if folder is None else read_meta(folder)
    if folder is None or meta is None or meta["made_from"] != made_of(features):
        return None

    vectors = Vectors(stored)
    if meta["rounding"] is not None:
        # "c": nothing is written, but torch takes only arrays that could be.
        vectors = Vectors(stored, np.load(folder / HALF, mmap_mode="c"), meta["rounding"], meta["norm"])
    return VideoTable.open(folder, meta["tags"]), vectors


def update_table(index: Path, tags: Tags) -> None:
    """Make or bring up to date the table of an index."""
    features = find_folder(index / FEATURES)
    assert features is not None, "features are written before their table"
    tags_digest = hashlib.sha256(repr(sorted(tags.items(), key=repr)).encode()).hexdigest()
    made_from = made_of(features)
    folder = find_folder(index / TABLE) or index / TABLE

    meta = read_meta(folder)
    if meta is not None and meta["made_from"] == made_from and meta["tags_digest"] == tags_digest:
        return
    known = {} if meta is None else known_durations(*(np.load(folder / f"{FILES[name]}.npy") for name in KNOWN))
    table = VideoTable.from_lines(features / INDEX, tags, known)

    stored = np.load(features / EMBEDDINGS, mmap_mode="r")
    with replacing_folder(index / TABLE) as new:
        table.save(new)
        half = np.lib.format.open_memmap(new / HALF, "w+", np.float16, stored.shape)
        margins = halve(stored, half)
        half.flush()
        del half
        if margins is None:
            (new / HALF).unlink()

        made = {
            "format": FORMAT,
            "made_from": made_from,
            "tags_digest": tags_digest,
            "tags": table.tags,
            "rounding": None if margins is None else margins[0],
            "norm": None if margins is None else margins[1],
        }
        write_json(new / META, made)
