"""The reference's pre-training files: one JSON list of `{"path": video or image, "caption": text}`.

The file may be called `video` or `image` too, the caption may be a list of texts, and other keys are ignored. The
list is parsed piece by piece, because five million items as Python objects would take gigabytes.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from datasets.annotations.source_rows import SourceRow, captions_with_words, not_utf8
from datasets.annotations.strict_json import unique_keys
from datasets.records import check_video_path

FILE_KEYS = ("path", "video", "image")
PIECE = 1 << 20
LONGEST_ITEM = 1 << 22
"""Characters, far more than a path and its captions need; an item that does not end within them is broken."""

_WHITE_SPACE = " \t\r\n"


def rows(path: Path, file: BinaryIO) -> Iterator[SourceRow]:
    """The rows of a list, without captions that have no words. Errors name the item, counted from 1."""
    for number, item in enumerate(items(path, file), start=1):
        try:
            yield _row(item)
        except ValueError as error:
            raise ValueError(f"{path}: item {number}: {error}") from None


def _row(item: Any) -> SourceRow:
    if not isinstance(item, dict):
        raise ValueError(f'found {type(item).__name__}, not an object; write {{"path": ..., "caption": ...}}')
    named = [key for key in FILE_KEYS if key in item]
    if len(named) != 1:
        raise ValueError(f"{' and '.join(named) or 'no file'} given; name the file under one of {', '.join(FILE_KEYS)}")

    video = item[named[0]]
    if not isinstance(video, str) or not video:
        raise ValueError(f"{named[0]} is {video!r}; write the path of a video or an image")
    check_video_path(video)

    if "caption" not in item:
        raise ValueError("no key 'caption'; add it")
    texts = [item["caption"]] if isinstance(item["caption"], str) else item["caption"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"caption is {item['caption']!r}; write a text or a list of texts")
    return SourceRow(video, captions_with_words(texts))


def items(path: Path, file: BinaryIO) -> Iterator[Any]:
    """Yield the items of a JSON list; needs no more memory than a piece and the longest item."""
    text = _Text(path, file)
    if text.next_character() != "[":
        raise ValueError(f"{path}: no JSON list; a file with one object a line is called .jsonl")
    text.skip(1)

    number = 0
    while (character := text.next_character()) != "]":
        if number:
            if character != ",":
                found = repr(character) if character else "the end of the file"
                raise ValueError(
                    f"{path}: item {number}: followed by {found}; write a comma between items, ] at the end"
                )
            text.skip(1)
        number += 1
        yield text.next_value(number)

    text.skip(1)
    if rest := text.next_character():
        raise ValueError(f"{path}: {rest!r} after the end of the list; a file holds one list")


class _Text:
    """The part of a file that has been read but not yet parsed."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder(object_pairs_hook=unique_keys)
        self._text, self._position, self._ended = "", 0, False

    def next_character(self) -> str:
        """The next character that is not white space, without consuming it; empty at the end of the file."""
        while True:
            while self._position < len(self._text) and self._text[self._position] in _WHITE_SPACE:
                self._position += 1
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_on():
                return ""

    def skip(self, count: int) -> None:
        """Consume `count` characters."""
        self._position += count

    def next_value(self, number: int) -> Any:
        """The next JSON value; `number` is the item's in errors."""
        self.next_character()
        while True:
            try:
                value, self._position = self._json.raw_decode(self._text, self._position)
                return value
            except RecursionError:
                raise ValueError(f"{self._path}: item {number}: nested too deeply; an item is a flat object") from None
            except json.JSONDecodeError as error:
                # The item may continue in the part that is not read yet.
                if len(self._text) - self._position > LONGEST_ITEM or not self._read_on():
                    raise ValueError(f"{self._path}: item {number}: not JSON ({error.msg})") from None
            except ValueError as error:  # a key given twice, a number of thousands of digits
                raise ValueError(f"{self._path}: item {number}: {error}") from None

    def _read_on(self) -> bool:
        """Read another piece and drop what is parsed; False at the end of the file."""
        if self._ended:
            return False
        data = self._file.read(PIECE)
        self._ended = not data
        try:
            more = self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise ValueError(f"{self._path}: after byte {self._file.tell() - len(data)}: {not_utf8(error)}") from None
        self._text, self._position = self._text[self._position :] + more, 0
        return True
