"""Files of pairs for pre-training; the suffix decides how a file is read."""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from datasets import index, shards
from datasets.annotations import image_table, json_list, manifest, webvid
from datasets.annotations.source_rows import RowParser, SourceRow
from datasets.pairs import PairTable
from datasets.records import ShardMember
from datasets.remote.addresses import Folder, RemoteFolder, is_address
from datasets.remote.fetch import look_at_all
from datasets.remote.streams import State

FILES_LOOKED_FOR, ELSEWHERE_LOOKED_FOR = 1000, 32
"""How many files of a source are looked for at the start of a run, on this machine and at addresses."""


def open_source(path: Path, media: Folder) -> PairTable:
    """Open the pairs of a file; relative paths are in `media`. Whether the videos exist is not checked.

    `.jsonl` is a manifest, `.csv` WebVid's table, `.tsv` a table of captions and images. `.json` is a list of paths and
    captions, or an index of shards, which contain their videos. ValueError for another suffix, and, naming file and
    row, for anything that does not fit the format.
    """
    if holds_its_videos(path):
        # Names in the index are relative to it; a copy of an index is of a folder elsewhere.
        folder = media if isinstance(media, RemoteFolder) else path.parent
        found = [shard.path for shard in shards.read_index(path, folder)]
        return index.open_table(path, partial(shards.rows, folder=folder), folder, found)
    if path.suffix not in PARSERS:
        raise ValueError(
            f"{path}: no format for {path.suffix or 'no suffix'!r}; a file of pairs ends in {', '.join(PARSERS)}"
        )
    return index.open_table(path, PARSERS[path.suffix], media)


def holds_its_videos(path: Path) -> bool:
    """Whether a file of pairs is an index of shards, which needs no folder of videos."""
    return path.suffix == ".json" and path.is_file() and shards.is_index(path)


def is_there(table: PairTable, video: int) -> bool:
    """Whether the file of a video exists, or the shard that holds it; elsewhere, whether it can be had."""
    return are_there(table, [video])[0]


def are_there(table: PairTable, videos: Iterable[int]) -> list[bool]:
    """What `is_there` says of several videos; those elsewhere are asked for side by side."""
    files = [table.file(video) for video in videos]
    paths = [file.shard if isinstance(file, ShardMember) else file for file in files]
    elsewhere = list(dict.fromkeys(path for path in paths if is_address(path)))
    found = dict(zip(elsewhere, look_at_all(elsewhere), strict=True))
    # `isfile` never raises, whatever the name.
    return [isinstance(found[path], State) if path in found else os.path.isfile(path) for path in paths]


def missing_of_some(path: Path, table: PairTable) -> tuple[int, int]:
    """Look for about a thousand evenly spread videos or images of a file: how many are missing, and how many checked.

    ValueError if all are missing. Checking millions would take long; missing ones are replaced during training.
    """
    most = ELSEWHERE_LOOKED_FOR if is_address(table.path(0)) else FILES_LOOKED_FOR
    videos = range(0, table.num_videos, -(-table.num_videos // most))
    missing = are_there(table, videos).count(False)
    if missing == len(videos):
        raise ValueError(
            f"{path}: none of {len(videos)} videos or images is there (the first is {table.path(0)}); "
            "set data.videos, or media of the source, to the folder that holds them"
        )
    return missing, len(videos)


def _manifest_rows(path: Path, file: BinaryIO) -> Iterator[SourceRow]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = manifest.caption_row(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        yield SourceRow(row["video"], tuple(row["caption"]), row.get("start"), row.get("end"))


PARSERS: dict[str, RowParser] = {
    ".jsonl": _manifest_rows,
    ".csv": webvid.rows,
    ".json": json_list.rows,
    ".tsv": image_table.rows,
}
"""How each suffix is read."""
