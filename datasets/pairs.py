"""Pairs of videos and texts in a few arrays: millions of pairs take no more than their bytes, shared by all workers.

Forked workers share the arrays of their parent. They would copy lists page by page, because reading a Python string
writes its reference count. Arrays on disk are mapped, and shared by all processes of a machine.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.digest import table_digest
from datasets.records import QuestionRecord, ShardMember, VideoTextRecord
from datasets.remote.addresses import join, shown

COLUMNS: dict[str, str] = {
    "path_bytes": "uint8",
    "path_ends": "int64",
    "text_bytes": "uint8",
    "text_ends": "int64",
    "text_video": "int64",
    "spans": "float64",
    "members": "int64",
    "shard_bytes": "uint8",
    "shard_ends": "int64",
    "shard_states": "int64",
}
"""The arrays of a table and their types.

`spans` is (videos, 2), nan where no time is given. `members` is (videos, 3) for videos in tar files: the number of
the tar file, the byte at which the video begins, and its size; `shard_states` (shards, 2) holds the size of each tar
file and its modification time in ns. Both are empty if videos are files. The others are flat.
"""
WIDTHS = {"spans": 2, "members": 3, "shard_states": 2}

META = "meta.json"


class PackedTexts:
    """Many strings in two arrays: their UTF-8 bytes back to back, and the position where each ends."""

    def __init__(self, text_bytes: NDArray, ends: NDArray) -> None:
        self.bytes, self.ends = text_bytes, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> "PackedTexts":
        """Pack strings."""
        encoded = [encode(text) for text in texts]
        return cls(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([len(item) for item in encoded], dtype=int))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, position: int) -> str:
        start = self.ends[position - 1] if position else 0
        return self.bytes[start : self.ends[position]].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[position] for position in range(len(self)))


def encode(text: str) -> bytes:
    """Encode as UTF-8; "surrogatepass", because JSON can hold lone surrogates, which UTF-8 cannot."""
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class PairTable:
    """Videos and the texts that belong to them, in arrays in memory or memory-mapped from an index on disk.

    Attributes:
        columns: the arrays by the names of COLUMNS.
        media: the folder, or its address, that relative paths of videos, or of the tar files that hold them, are in.
        left_out: how many rows of the file had no caption with words.
        folder, stamp: where the index lies, and the state of its source file; None in memory. A table from an index is
            pickled as these two, without its arrays.
        known_digest: the `digest` stored in the index; None in memory.
    """

    columns: dict[str, NDArray]
    media: str = ""
    left_out: int = 0
    folder: Path | None = None
    stamp: dict[str, Any] | None = None
    known_digest: str | None = None

    @classmethod
    def of(cls, records: Sequence[VideoTextRecord] | Sequence[QuestionRecord]) -> "PairTable":
        """Make a table in memory.

        A record with captions is one video, and its captions are neighbours. With questions, record i is text i, and
        questions about the same part of the same video share that video.
        """
        questions = [record for record in records if isinstance(record, QuestionRecord)]
        if questions:
            assert len(questions) == len(records), "records of one kind"
            places: dict[tuple[str, float | None, float | None], int] = {}
            keys = [(record.video, record.start, record.end) for record in questions]
            text_video = [places.setdefault(key, len(places)) for key in keys]
            return cls._in_memory(list(places), [record.question for record in questions], text_video)

        captioned = [record for record in records if isinstance(record, VideoTextRecord)]
        return cls._in_memory(
            [(record.video, record.start, record.end) for record in captioned],
            [text for record in captioned for text in record.captions],
            [video for video, record in enumerate(captioned) for _ in record.captions],
        )

    @classmethod
    def _in_memory(
        cls, videos: list[tuple[str, float | None, float | None]], texts: list[str], text_video: list[int]
    ) -> "PairTable":
        paths, packed = PackedTexts.of(path for path, _, _ in videos), PackedTexts.of(texts)
        return cls(
            {
                "path_bytes": paths.bytes,
                "path_ends": paths.ends,
                "text_bytes": packed.bytes,
                "text_ends": packed.ends,
                "text_video": np.array(text_video, np.int64),
                "spans": np.array([span for _, *span in videos], np.float64).reshape(-1, 2),  # None: nan
                "members": np.empty((0, 3), np.int64),
                "shard_bytes": np.empty(0, np.uint8),
                "shard_ends": np.empty(0, np.int64),
                "shard_states": np.empty((0, 2), np.int64),
            }
        )

    @classmethod
    def open(cls, folder: Path, stamp: dict[str, Any], media: str) -> "PairTable":
        """Map the arrays of an index on disk.

        ValueError, with the reason, if the index does not match `stamp` or its files are incomplete.
        """
        try:
            meta = json.loads((folder / META).read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder / META} cannot be read ({error})") from None
        if not isinstance(meta, dict) or meta.get("stamp") != stamp:
            raise ValueError(f"{folder} is of another state of the file")

        lengths, left_out, digest = meta.get("lengths"), meta.get("left_out"), meta.get("digest")
        if not isinstance(lengths, dict) or lengths.keys() != COLUMNS.keys():
            raise ValueError(f"{folder / META} is not whole")
        if not isinstance(left_out, int) or not isinstance(digest, str):
            raise ValueError(f"{folder / META} is not whole")

        # The length of a file tells whether it was written to its end.
        columns: dict[str, NDArray[Any]] = {}
        for name, kind in COLUMNS.items():
            path, length = folder / f"{name}.bin", lengths[name]
            if not path.is_file() or path.stat().st_size != length * np.dtype(kind).itemsize:
                raise ValueError(f"{path} is not as long as it was written")
            # An empty file cannot be mapped.
            columns[name] = np.memmap(path, kind, "r") if length else np.empty(0, kind)
        for name, width in WIDTHS.items():
            columns[name] = columns[name].reshape(-1, width)

        table = cls(columns, media, left_out, folder, stamp, digest)
        for texts, name in ((table.paths, "path"), (table.texts, "text"), (table.shards, "shard")):
            if len(texts) and texts.ends[-1] != len(texts.bytes):
                raise ValueError(f"{folder}: the ends of {name} do not fit its bytes")
        return table

    def __reduce__(self) -> tuple[Any, ...]:
        if self.folder is None:
            return PairTable, (self.columns, self.media, self.left_out)
        return PairTable.open, (self.folder, self.stamp, self.media)

    def __len__(self) -> int:
        return len(self.columns["text_ends"])

    @property
    def digest(self) -> str:
        """Identifies the contents: other videos, texts, times or another order give another (`datasets.digest`)."""
        return self.known_digest or table_digest(self.columns)

    @property
    def num_videos(self) -> int:
        """How many videos, or parts of videos, there are; `len` is the number of texts."""
        return len(self.columns["path_ends"])

    @property
    def paths(self) -> PackedTexts:
        """The path of each video as the file gives it."""
        return PackedTexts(self.columns["path_bytes"], self.columns["path_ends"])

    @property
    def shards(self) -> PackedTexts:
        """The tar files that hold the videos, as the index file names them; none where videos are files."""
        return PackedTexts(self.columns["shard_bytes"], self.columns["shard_ends"])

    @property
    def texts(self) -> PackedTexts:
        """Every text, as it was written."""
        return PackedTexts(self.columns["text_bytes"], self.columns["text_ends"])

    @property
    def text_video(self) -> NDArray:
        """(texts,) the position of the video that each text belongs to."""
        return self.columns["text_video"]

    def path(self, video: int) -> str:
        """A readable path of a video: its file, or its tar file followed by its name in there; an address as shown."""
        file = self.file(video)
        return str(file) if isinstance(file, ShardMember) else shown(file)

    def file(self, video: int) -> str | ShardMember:
        """What to open for a video."""
        if not len(self.columns["members"]):
            return join(self.media, self.paths[video])
        shard, offset, size = self.columns["members"][video].tolist()
        file_size, changed = self.columns["shard_states"][shard].tolist()
        return ShardMember(join(self.media, self.shards[shard]), self.paths[video], offset, size, (file_size, changed))

    def span(self, video: int) -> tuple[float | None, float | None]:
        """Start and end in seconds, None where not given."""
        start, end = (None if np.isnan(time) else float(time) for time in self.columns["spans"][video])
        return start, end
