"""Videos with timed words as a table, from a manifest, a list of YT-Temporal or a folder with subtitles.

A `PairTable` of speech holds one text a video, its words with their times as JSON, and the video's duration as the end
of its part, where the annotations give it. Needs neither torch nor a video.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from datasets import index
from datasets.annotations.files import json_lines_of
from datasets.annotations.source_rows import RowParser, SourceRow
from datasets.annotations.spoken import SpokenRecord, manifest_record, read_folder, yt_temporal_records
from datasets.annotations.timed_words import NUM_CLIPS, SHORTEST_VIDEO, TimedWord
from datasets.pairs import PairTable
from datasets.records import VideoTextRecord
from datasets.remote.addresses import Folder
from datasets.text import has_words


def open_speech(path: Path, media: Folder) -> PairTable:
    """Open videos with timed words; relative paths are in `media`. Whether the videos exist is not checked.

    A folder holds videos with subtitles beside them, `.jsonl` is a manifest with `words`, `.csv` a list of YT-Temporal.
    Videos in which nothing is spoken are left out and counted; in a manifest they are an error. ValueError, naming file
    and line, for anything that does not fit the format.
    """
    if path.is_dir():
        return _table_of_folder(path)
    parsers: dict[str, RowParser] = {".jsonl": _manifest_rows}
    if isinstance(media, Path):  # its speech lies in files beside the videos
        parsers[".csv"] = partial(_yt_temporal_rows, media)
    if path.suffix not in parsers:
        raise ValueError(
            f"{path}: no folder, and no format for {path.suffix or 'no suffix'!r}; timed words are in a folder of "
            f"videos with subtitles, or in a file that ends in {', '.join(parsers)}"
        )
    return index.open_table(path, parsers[path.suffix], media, kind="speech")


def check_long_enough(path: Path, table: PairTable) -> None:
    """ValueError, naming the line, for a manifest with a video that is too short for four clips with gaps."""
    durations = table.columns["spans"][:, 1]
    if path.suffix != ".jsonl" or not (durations < SHORTEST_VIDEO).any():
        return
    for row in json_lines_of(path):
        duration = row.fields.get("duration")
        if duration is not None and duration < SHORTEST_VIDEO:
            raise ValueError(
                f"{row.place}: {row.fields['video']} of {duration:g} s is too short for {NUM_CLIPS} clips with gaps, "
                f"which take {SHORTEST_VIDEO} s; remove the line, or set data.speech.cut=whole"
            )


def packed(words: Iterable[TimedWord]) -> str:
    """Timed words as the text of a table."""
    return json.dumps([[word.time, word.word] for word in words], ensure_ascii=False)


def unpacked(text: str) -> list[TimedWord]:
    """The timed words of a table's text."""
    return [TimedWord(time, word) for time, word in json.loads(text)]


def _table_of_folder(root: Path) -> PairTable:
    """The videos of a folder that have subtitles beside them, by their paths in it."""
    records = read_folder(root)
    spoken = [record for record in records if any(has_words(word.word) for word in record.words)]
    if not spoken:
        raise ValueError(f"{root}: nothing is spoken in any of its {len(records)} videos; check their subtitles")

    folder = str(root.absolute())
    table = PairTable.of(
        [VideoTextRecord(os.path.relpath(record.video, folder), (packed(record.words),)) for record in spoken]
    )
    return replace(table, media=folder, left_out=len(records) - len(spoken))


def _row(record: SpokenRecord, video: str) -> SourceRow:
    texts = (packed(record.words),) if any(has_words(word.word) for word in record.words) else ()
    return SourceRow(video, texts, end=record.duration)


def _manifest_rows(path: Path, file: BinaryIO) -> Iterator[SourceRow]:
    return (_row(record, record.video) for record in map(manifest_record, json_lines_of(path)))


def _yt_temporal_rows(media: Path, path: Path, file: BinaryIO) -> Iterator[SourceRow]:
    folder = str(media.absolute())
    return (_row(record, os.path.relpath(record.video, folder)) for record in yt_temporal_records(path, media))
