"""Tables of captions and images, the common form of CC3M after the download: tab-separated, without quotes.

Without a header, a line is a caption and the file of the image. A header names the columns, in any order; other columns
are ignored. A file without the suffix of an image is read as a video.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from datasets.annotations.source_rows import SourceRow, caption_row, text_lines

CAPTION_COLUMNS = ("caption", "text", "title")
FILE_COLUMNS = ("image", "path", "file", "filepath")


def rows(path: Path, file: BinaryIO) -> Iterator[SourceRow]:
    """The rows of a table; a caption without words counts as none. ValueError for URLs, which are not files."""
    caption, image, width = 0, 1, 2
    for number, line in enumerate(text_lines(path, file), start=1):
        if not line.strip():
            continue
        fields = line.rstrip("\r\n").split("\t")
        if number == 1:
            found = _columns(fields)
            if found is not None:
                caption, image = found
                width = len(fields)
                continue

        if len(fields) != width:
            raise ValueError(
                f"{path}:{number}: {len(fields)} fields, not {width}; write caption and file with one tab between them"
            )

        name = fields[image].strip()
        if not name:
            raise ValueError(f"{path}:{number}: the file is empty; name an image or remove the line")
        if name.startswith(("http://", "https://")):
            raise ValueError(
                f"{path}:{number}: {name[:80]} is an address; download the images first (img2dataset does) and write "
                "a table of captions and the files they are in"
            )
        yield caption_row(f"{path}:{number}", name, [fields[caption]])


def _columns(fields: Sequence[str]) -> tuple[int, int] | None:
    """The positions of caption and file in a header; None if the line is no header."""
    names = [field.strip().lower() for field in fields]
    caption = next((names.index(name) for name in CAPTION_COLUMNS if name in names), None)
    image = next((names.index(name) for name in FILE_COLUMNS if name in names), None)
    return None if caption is None or image is None else (caption, image)
