"""The boxes of a dataset in one safetensors file, which all processes map into memory.

For each clip, the file has boxes in units of 1/65,535 of the side of the frame (a pixel of 224 is 292 units), classes,
and trajectory ids. Its metadata say to which frames the boxes belong. An unfinished file ends in `.part`.
"""

import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.objects.detections import NO_BOX, ClipBoxes

PART = ".part"
VERSION = 1
STEPS = 65535
PENDING, DONE, FAILED = 0, 1, 2
DTYPES = {"U8": np.uint8, "U16": np.uint16, "I16": np.int16, "I64": np.int64}
MOST_CLASSES = np.iinfo(np.int16).max


@dataclass(frozen=True)
class ObjectSettings:
    """The frames to which the boxes belong, and the names of their classes.

    Attributes:
        num_frames, objects_per_frame: T and O.
        image_size, fit: the frame's side in pixels, and whether it is a `squash` or a `crop` of the video frame.
        sampling: the rule by which frames were sampled.
        source: where the boxes come from, in words.
        classes: class numbers by name; empty if unknown.
    """

    num_frames: int
    objects_per_frame: int
    image_size: int
    fit: str
    sampling: str
    source: str
    classes: Mapping[str, int]


class ObjectStore:
    """A finished file; `store[name]` gives the boxes of a clip.

    Looks for the full name, then without its suffix, then for the file name alone, then for that without its suffix.
    A part of a video has the name `clip_name` gives it. A store is pickled as its path.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            part = path.with_name(path.name + PART)
            remedy = "run the command that makes it again, it resumes" if part.is_file() else "make it"
            raise ValueError(f"{path}: there is no such file; {remedy} (python -m scripts.prepare_objects)")
        self.path = path
        self._arrays, self.settings = _open(path, "r")

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectStore, (self.path,)

    def __len__(self) -> int:
        return len(self._arrays["state"])

    def __contains__(self, name: str) -> bool:
        row = self.find([name])
        return row is not None and not self.has_failed(row)

    def __getitem__(self, name: str) -> ClipBoxes:
        row = self.find([name])
        if row is None or self.has_failed(row):
            raise KeyError(f"{self.path}: has no boxes of {name}; prepare them, or leave the clip out")
        return self.at(row)

    def at(self, row: int) -> ClipBoxes:
        """The boxes in a row, see `find`."""
        boxes = self._arrays["boxes"][row].astype(np.float32) * (self.settings.image_size / STEPS)
        classes = self._arrays["classes"][row].astype(np.int64)
        boxes[classes == 0] = NO_BOX
        return ClipBoxes(boxes, classes, self._arrays["trajectory_ids"][row].astype(np.int64))

    def names(self) -> Iterator[str]:
        """All names, in the order of the file."""
        yield from _names(self._arrays)

    def check(self, **wanted: int | str) -> None:
        """ValueError unless the boxes belong to the frames that a loader reads: `num_frames`, `sampling`, `fit`, ..."""
        found = asdict(self.settings)
        differing = [
            f"{key} is {found[key]} there and {value} here" for key, value in wanted.items() if found[key] != value
        ]
        if differing:
            raise ValueError(
                f"{self.path}: its boxes are of other frames: {'; '.join(differing)}; prepare them again with these "
                "settings, or take the file's"
            )

    def find(self, names: Iterable[str]) -> int | None:
        """The row of the first of a clip's `names` that the file knows in one of its spellings; None if none is."""
        for name in names:
            for spelling in spellings(name):
                row = self._row(spelling)
                if row is not None:
                    return row
        return None

    def has_failed(self, row: int) -> bool:
        """Whether no boxes could be made for a clip of the file."""
        return bool(self._arrays["state"][row] != DONE)

    def _row(self, name: str) -> int | None:
        encoded = name.encode("utf-8", "surrogatepass")
        hashes, rows = self._hashes
        place = int(np.searchsorted(hashes, np.uint64(_hash(encoded))))
        offsets = self._arrays["name_offsets"]

        # Several names may have one hash: the names themselves decide.
        while place < len(hashes) and hashes[place] == _hash(encoded):
            row = int(rows[place])
            if self._arrays["names"][offsets[row] : offsets[row + 1]].tobytes() == encoded:
                return row
            place += 1
        return None

    @cached_property
    def _hashes(self) -> tuple[NDArray, NDArray]:
        """The hashes of all names, sorted, and their rows: arrays, which forked workers share."""
        content, offsets = self._arrays["names"].tobytes(), self._arrays["name_offsets"].tolist()
        hashes = np.fromiter(
            (_hash(content[begin:end]) for begin, end in zip(offsets[:-1], offsets[1:], strict=True)),
            np.uint64,
            len(offsets) - 1,
        )
        rows = np.argsort(hashes, kind="stable")
        return hashes[rows], rows


def clip_name(video: str, start: float | None, end: float | None) -> str:
    """What the file calls a video, or its part from `start` to `end` seconds."""
    return video if start is None and end is None else f"{video}[{start or 0:g},{'' if end is None else f'{end:g}'}]"


def spellings(name: str) -> Iterator[str]:
    """The names under which a clip may stand in a file: whole, without suffix, and both without folders."""
    # The times of a part are no part of a suffix.
    path, bracket, times = name.partition("[") if name.endswith("]") else (name, "", "")
    pure = PurePosixPath(path)
    if not pure.name:
        yield name
        return
    for spelling in dict.fromkeys((path, str(pure.with_suffix("")), pure.name, pure.stem)):
        yield f"{spelling}{bracket}{times}"


class StoreWriter:
    """Fills a file row by row; an interrupted file is resumed."""

    def __init__(self, path: Path, names: Sequence[str], settings: ObjectSettings) -> None:
        """Begin `path`, or resume it.

        ValueError if it is already finished, if it was begun with other settings or clips, or if names repeat.
        """
        if len(set(names)) != len(names):
            repeated = next(name for position, name in enumerate(names) if name in names[:position])
            raise ValueError(f"{repeated}: stands several times in the list of clips")

        self.path, self._part = path, path.with_name(path.name + PART)
        if path.exists():
            raise ValueError(f"{path}: is there already; name another file, or delete it")

        if self._part.exists():
            self._arrays, begun = _open(self._part, "r+")
            _check_begun(self._part, begun, settings, list(_names(self._arrays)), names)
        else:
            _create(self._part, names, settings)
            self._arrays, _ = _open(self._part, "r+")

    def pending(self) -> list[int]:
        """Rows without boxes: pending ones, and those that failed."""
        return np.flatnonzero(self._arrays["state"] != DONE).tolist()

    def put(self, row: int, found: ClipBoxes, image_size: int) -> None:
        """Store a clip's boxes."""
        is_box = found.classes > 0
        if found.classes.max(initial=0) > MOST_CLASSES:
            raise ValueError(f"class number {found.classes.max()} is above {MOST_CLASSES}")

        shares = np.clip(found.boxes / image_size, 0, 1) * STEPS
        self._arrays["boxes"][row] = np.where(is_box[..., None], shares, 0).round()
        self._arrays["classes"][row] = found.classes
        self._arrays["trajectory_ids"][row] = found.trajectory_ids
        # Written last: a row counts only when it is complete.
        self._arrays["state"][row] = DONE

    def fail(self, row: int) -> None:
        """Mark a clip as failed; resuming the file retries it."""
        self._arrays["state"][row] = FAILED

    def finish(self) -> None:
        """Write everything to disk, and give the file its final name."""
        for array in self._arrays.values():
            array.flush()
        os.replace(self._part, self.path)


def _create(path: Path, names: Sequence[str], settings: ObjectSettings) -> None:
    """Make a file with header and names, and zeros for everything else."""
    encoded = [name.encode() for name in names]
    num_clips, num_frames, per_frame = len(names), settings.num_frames, settings.objects_per_frame
    shapes = {
        "name_offsets": ("I64", (num_clips + 1,)),
        "boxes": ("U16", (num_clips, num_frames, per_frame, 4)),
        "classes": ("I16", (num_clips, num_frames, per_frame)),
        "trajectory_ids": ("I16", (num_clips, 2 * per_frame)),
        "state": ("U8", (num_clips,)),
        "names": ("U8", (sum(map(len, encoded)),)),
    }

    # The safetensors header: the type, shape and bytes of each array, padded so that the arrays are aligned.
    header: dict[str, Any] = {"__metadata__": {"objects": json.dumps({"version": VERSION, **asdict(settings)})}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    # Rename at the end, so that the file exists only with all its names.
    path.parent.mkdir(parents=True, exist_ok=True)
    unnamed = path.with_name(path.name + ".new")
    with open(unnamed, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    arrays, _ = _open(unnamed, "r+")
    arrays["name_offsets"][:] = np.cumsum([0, *map(len, encoded)])
    arrays["names"][:] = np.frombuffer(b"".join(encoded), np.uint8)
    for array in arrays.values():
        array.flush()
    os.replace(unnamed, path)


def _open(path: Path, mode: Any) -> tuple[dict[str, np.memmap], ObjectSettings]:
    """Map the arrays of a file and read its settings. ValueError if it is not such a file."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("no header")
            header = json.loads(file.read(length))

        stored = json.loads(header.pop("__metadata__")["objects"])
        if stored.pop("version") != VERSION:
            raise ValueError("another version")
        settings = ObjectSettings(**{field.name: stored[field.name] for field in fields(ObjectSettings)})

        arrays = {
            name: np.memmap(
                path, DTYPES[entry["dtype"]], mode, 8 + length + entry["data_offsets"][0], tuple(entry["shape"])
            )
            for name, entry in header.items()
        }
        if {"boxes", "classes", "trajectory_ids", "state", "names", "name_offsets"} - arrays.keys():
            raise ValueError("arrays are missing")
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ValueError(f"{path}: is no file of scripts.prepare_objects ({error}); make it again") from None
    return arrays, settings


def _names(arrays: Mapping[str, np.memmap]) -> Iterator[str]:
    offsets, content = arrays["name_offsets"], arrays["names"].tobytes()
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        yield content[begin:end].decode()


def _check_begun(
    path: Path, begun: ObjectSettings, settings: ObjectSettings, old_names: Sequence[str], names: Sequence[str]
) -> None:
    before, now = asdict(begun), asdict(settings)
    differing = [key for key in now if before[key] != now[key]]
    if differing:
        key = differing[0]
        shown = "" if key == "classes" else f": {before[key]} then, {now[key]} now"
        raise ValueError(f"{path}: was begun with another {key}{shown}; use the same, or delete the file")
    if list(names) != list(old_names):
        raise ValueError(
            f"{path}: was begun for {len(old_names)} clips that are not these {len(names)}; delete the file"
        )


def _hash(encoded: bytes) -> int:
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "little")
