"""What every annotation file becomes: records, one a video or a part of one, and their compact storage."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class VideoTextRecord:
    """A video, or its part from `start` to `end` in seconds, and the captions that describe it.

    `video` is an absolute path; a path of an image stands for a still clip.
    """

    video: str
    captions: tuple[str, ...]
    start: float | None = None
    end: float | None = None


def is_image(path: str) -> bool:
    """Whether the file is taken as a still clip, which its suffix decides."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def split_missing(
    records: Sequence[VideoTextRecord], videos: Path
) -> tuple[list[VideoTextRecord], list[VideoTextRecord]]:
    """Split the records into those whose file is there and those whose file is not, both in order.

    `videos` is the folder the error names: ValueError if no file at all is there.
    """
    there = {path: Path(path).is_file() for path in {record.video for record in records}}
    present = [record for record in records if there[record.video]]
    missing = [record for record in records if not there[record.video]]
    if missing and not present:
        raise ValueError(
            f"none of the {len(there)} videos is in {videos} (the first is {missing[0].video}); "
            "set data.videos to the folder that holds them"
        )
    return present, missing


class PackedTexts:
    """Many strings in two arrays, read by position.

    Worker processes share arrays with their parent; a list they would copy page by page, as every look at a string
    writes its reference count.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        # "surrogatepass", because JSON may spell what UTF-8 cannot.
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        self._ends = np.cumsum([len(item) for item in encoded], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, position: int) -> str:
        start = self._ends[position - 1] if position else 0
        return self._bytes[start : self._ends[position]].tobytes().decode("utf-8", "surrogatepass")
