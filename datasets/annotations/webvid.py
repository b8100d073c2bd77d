"""WebVid's tables: CSV with a header, of which `videoid`, `page_dir` and `name` (the caption) are read.

The video of a row is `page_dir/videoid.mp4`, as WebVid's own downloader saves it.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from datasets.annotations.source_rows import SourceRow, caption_row, text_lines

COLUMNS = ("videoid", "page_dir", "name")


def rows(path: Path, file: BinaryIO) -> Iterator[SourceRow]:
    """The rows of a table; a `name` without words gives no caption, and an empty `page_dir` gives no folder."""
    reader = csv.reader(text_lines(path, file), strict=True)
    try:
        header = next(reader, [])
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise ValueError(
                f"{path}:1: no column {missing[0]!r}, found {', '.join(header) or 'nothing'}; "
                f"a table of WebVid begins with a line that names {', '.join(COLUMNS)}"
            )

        videoid, page_dir, name = (header.index(column) for column in COLUMNS)
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise ValueError(
                    f"{path}:{reader.line_num}: {len(fields)} fields where the header names {len(header)}; "
                    "put quotes around a field with commas"
                )
            if not fields[videoid].strip():
                raise ValueError(f"{path}:{reader.line_num}: videoid is empty; fill it in or remove the line")

            video = f"{fields[videoid].strip()}.mp4"
            folder = fields[page_dir].strip()
            video = f"{folder}/{video}" if folder else video
            yield caption_row(f"{path}:{reader.line_num}", video, [fields[name]])
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not CSV ({error}); look for a quote that is not closed") from None
