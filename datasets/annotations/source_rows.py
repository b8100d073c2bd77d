"""What all formats with millions of pairs share: their rows are read one at a time.

A parser is a function `rows(path, file)`; it reads from the open file, so that the caller can show progress.
"""

import codecs
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from datasets.records import check_video_path
from datasets.text import check_text, has_words


class Place(NamedTuple):
    """The position of a video in a tar file: the tar file's name in the index of shards, the first byte, the size.

    `shard_state` is the size of the tar file and its modification time in ns.
    """

    shard: str
    offset: int
    size: int
    shard_state: tuple[int, int]


class SourceRow(NamedTuple):
    """A video or an image as the file names it, its captions (if none, the row is skipped), and its part in seconds.

    With a `place`, the video is inside a tar file, and `video` is its name there. Rows of one tar file are neighbours,
    and either all rows of a source have a place or none.
    """

    video: str
    captions: tuple[str, ...]
    start: float | None = None
    end: float | None = None
    place: Place | None = None


RowParser = Callable[[Path, BinaryIO], Iterator[SourceRow]]
"""Gives the rows of an open file in order; ValueError with file and row (`path` is the name in it) for a bad one."""


def caption_row(where: str, video: str, texts: Iterable[str]) -> SourceRow:
    """The row of a video and its captions that have words; collections from the web contain some without.

    ValueError, which begins with `where`, for a path or a caption that cannot be used.
    """
    try:
        check_video_path(video)
        return SourceRow(video, captions_with_words(texts))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def captions_with_words(texts: Iterable[str]) -> tuple[str, ...]:
    """The captions that have a letter or a digit; ValueError for one that cannot be used."""
    captions = tuple(texts)
    for text in captions:
        check_text(text, "caption")
    return tuple(text for text in captions if has_words(text))


def text_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """The lines with their ends; ValueError with file and line, if they are not UTF-8."""
    for number, line in enumerate(file, start=1):
        try:
            yield (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}:{number}: {not_utf8(error)}") from None


def not_utf8(error: UnicodeDecodeError) -> str:
    """What to do about text that is not UTF-8."""
    return f"byte {error.object[error.start]:#04x} is no UTF-8; save the file in that encoding"
