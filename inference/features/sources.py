"""Find the clips to extract features from: in a video, a folder, a manifest or a file of pairs, each clip once."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets.annotations import manifest
from datasets.annotations.layout import VIDEO_SUFFIXES
from datasets.files_below import files_below
from datasets.records import QuestionRecord, VideoTextRecord, is_image
from datasets.sources import PARSERS, holds_its_videos, open_source


@dataclass(frozen=True)
class Clip:
    """A video, an image, or the part of a video from `start` to `end` in seconds, with the state of its file.

    `size` is in bytes, `mtime_ns` is the modification time; both are None if the file does not exist.
    """

    video: str
    start: float | None
    end: float | None
    size: int | None
    mtime_ns: int | None

    @property
    def row(self) -> dict[str, Any]:
        """The clip as a line of index.jsonl."""
        return asdict(self)


def clips_of(source: Path, videos: Path | None) -> list[Clip]:
    """The clips that `source` names, in its order; a folder is searched with its subfolders, sorted by path.

    Relative paths in a file start from `videos`, by default the folder `videos` beside it. ValueError if the source
    does not exist, names no video, or breaks its format.
    """
    if source.is_dir():
        paths = _videos_below(source)
        if not paths:
            raise ValueError(f"{source}: holds no videos or images; known suffixes are {', '.join(VIDEO_SUFFIXES)}")
        named: list[tuple[str, float | None, float | None]] = [(path, None, None) for path in paths]
    elif not source.is_file():
        raise ValueError(f"{source}: no such file or folder; name a video, a folder of videos or a manifest")
    elif _is_visual(source.name):
        named = [(str(source.absolute()), None, None)]
    elif source.suffix in PARSERS:
        named = _named_by(source, videos or source.absolute().parent / "videos")
    else:
        known = ", ".join((*PARSERS, *VIDEO_SUFFIXES))
        raise ValueError(f"{source}: no format for {source.suffix or 'no suffix'!r}; known are {known} and images")

    if videos is not None and (source.is_dir() or _is_visual(source.name)):
        raise ValueError(f"--videos: has no effect on {source}, which is no list of videos; leave it out")

    clips = [_clip(*clip) for clip in dict.fromkeys(named)]
    if all(clip.size is None for clip in clips):
        raise ValueError(
            f"{source}: none of its {len(clips)} videos is there (the first is {clips[0].video}); set --videos to the "
            "folder that holds them"
        )
    return clips


def tags_of(source: Path, videos: Path | None) -> dict[manifest.Part, tuple[str, ...]]:
    """The tags of the clips that a manifest names, where it gives some; other sources have none."""
    if source.suffix != ".jsonl" or not source.is_file():
        return {}
    return manifest.read_tags(source, videos or source.absolute().parent / "videos", questions=_asks(source))


def _named_by(source: Path, videos: Path) -> list[tuple[str, float | None, float | None]]:
    if source.suffix == ".jsonl":
        read = manifest.read_questions if _asks(source) else manifest.read
        records: list[QuestionRecord] | list[VideoTextRecord] = read(source, videos)
        return [(record.video, record.start, record.end) for record in records]
    if holds_its_videos(source):
        raise ValueError(f"{source}: lists shards, whose videos are no files; unpack them and name their folder")
    table = open_source(source, videos.absolute())
    return [(table.path(video), *table.span(video)) for video in range(table.num_videos)]


def _asks(source: Path) -> bool:
    """Whether the first line of a manifest is a question; the manifest's own reader will refuse invalid JSON."""
    with source.open("rb") as lines:
        first = next((line for line in lines if line.strip()), b"{}")
    try:
        return "question" in json.loads(first)
    except (ValueError, TypeError):
        return False


def _videos_below(folder: Path) -> list[str]:
    """Absolute paths of all videos and images, hidden files excluded; follows links to folders."""
    return sorted(path for path in files_below(folder.absolute()) if _is_visual(os.path.basename(path)))


def _is_visual(name: str) -> bool:
    return not name.startswith(".") and (is_image(name) or name.lower().endswith(VIDEO_SUFFIXES))


def _clip(video: str, start: float | None, end: float | None) -> Clip:
    try:
        state = os.stat(video)
    except OSError:
        return Clip(video, start, end, None, None)
    return Clip(video, start, end, state.st_size, state.st_mtime_ns)
