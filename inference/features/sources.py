"""Find the clips to extract features from: in a video, a folder, a manifest or a file of pairs, each clip once."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from datasets.annotations import manifest
from datasets.annotations.layout import VIDEO_SUFFIXES
from datasets.files_below import files_below
from datasets.records import QuestionRecord, VideoTextRecord, is_image
from datasets.remote.addresses import Folder, RemoteFolder, is_address, join, shown
from datasets.remote.fetch import look_at_all
from datasets.remote.folders import copy_of, listing
from datasets.remote.streams import RemoteError, State
from datasets.sources import PARSERS, holds_its_videos, open_source

Named = tuple[str, float | None, float | None]
"""The path or address of a video, and the part of it in seconds."""
WRITTEN = ("video", "start", "end", "size", "mtime_ns")
"""The fields of a clip that lines of index.jsonl have."""


@dataclass(frozen=True)
class Clip:
    """A video, an image, or the part of a video from `start` to `end` in seconds, with the state of its file.

    `size` is in bytes, `mtime_ns` is the modification time, or a number that changes with a file elsewhere; both are
    None if the file does not exist. `video` is what is written down. Where an address has secrets, `address` is what is
    opened in its place, in this run alone.
    """

    video: str
    start: float | None
    end: float | None
    size: int | None
    mtime_ns: int | None
    address: str | None = field(default=None, compare=False, repr=False)

    @property
    def file(self) -> str:
        """What to open."""
        return self.address or self.video

    @property
    def row(self) -> dict[str, Any]:
        """The clip as a line of index.jsonl."""
        return {name: getattr(self, name) for name in WRITTEN}


def clips_of(source: Folder, videos: Folder | None) -> list[Clip]:
    """The clips that `source` names, in its order; a folder is searched with its subfolders, sorted by path.

    Relative paths in a file start from `videos`, by default the folder `videos` beside it. Source and videos may be
    elsewhere. ValueError if the source does not exist, names no video, or breaks its format.
    """
    states: dict[str, State | None] = {}
    if isinstance(source, RemoteFolder):
        named = _named_elsewhere(source, videos, states)
    else:
        named = _named_here(source, videos)

    clips = _with_states(list(dict.fromkeys(named)), states)
    if all(clip.size is None for clip in clips):
        raise ValueError(
            f"{source}: none of its {len(clips)} videos is there (the first is {clips[0].video}); set --videos to the "
            "folder that holds them"
        )
    return clips


def tags_of(source: Folder, videos: Folder | None) -> dict[manifest.Part, tuple[str, ...]]:
    """The tags of the clips that a manifest names, where it gives some; other sources have none."""
    if not str(source).endswith(".jsonl") or (isinstance(source, Path) and not source.is_file()):
        return {}
    local = copy_of(source) if isinstance(source, RemoteFolder) else source
    found = manifest.read_tags(local, videos or source.absolute().parent / "videos", questions=_asks(local))
    return {(shown(video), start, end): tags for (video, start, end), tags in found.items()}


def with_addresses(clips: Sequence[Clip], source: Folder, videos: Folder | None) -> list[Clip]:
    """Clips that were written down, with the addresses that the same source gives them where these have secrets."""
    if PurePosixPath(str(source)).suffix not in PARSERS:
        return list(clips)
    named = _named_elsewhere(source, videos, {}) if isinstance(source, RemoteFolder) else _named_here(source, videos)
    address_of = {shown(video): video for video, _, _ in named if is_address(video) and shown(video) != video}
    return [replace(clip, address=address_of.get(clip.video)) for clip in clips]


def _named_here(source: Path, videos: Folder | None) -> list[Named]:
    if source.is_dir():
        paths = _videos_below(source)
        if not paths:
            raise ValueError(f"{source}: holds no videos or images; known suffixes are {', '.join(VIDEO_SUFFIXES)}")
        named: list[Named] = [(path, None, None) for path in paths]
    elif not source.is_file():
        raise ValueError(f"{source}: no such file or folder; name a video, a folder of videos or a manifest")
    elif _is_visual(source.name):
        named = [(str(source.absolute()), None, None)]
    elif source.suffix in PARSERS:
        return _named_by(source, videos or source.absolute().parent / "videos")
    else:
        known = ", ".join((*PARSERS, *VIDEO_SUFFIXES))
        raise ValueError(f"{source}: no format for {source.suffix or 'no suffix'!r}; known are {known} and images")

    _refuse_videos(source, videos)
    return named


def _named_elsewhere(source: RemoteFolder, videos: Folder | None, states: dict[str, State | None]) -> list[Named]:
    """What an address names; `states` gets the states of files that a list of the folder tells."""
    if PurePosixPath(source.name).suffix in PARSERS:
        return _named_by(copy_of(source), videos or source.parent / "videos")
    _refuse_videos(source, videos)
    if _is_visual(source.name):
        return [(source.address, None, None)]

    found = listing(source)
    states.update({join(source.address, name): found[name] for name in found if _is_visual(os.path.basename(name))})
    if not states:
        raise ValueError(f"{source}: holds no videos or images; known suffixes are {', '.join(VIDEO_SUFFIXES)}")
    return [(address, None, None) for address in states]


def _refuse_videos(source: Folder, videos: Folder | None) -> None:
    if videos is not None:
        raise ValueError(f"--videos: has no effect on {source}, which is no list of videos; leave it out")


def _named_by(source: Path, videos: Folder) -> list[Named]:
    if source.suffix == ".jsonl":
        read = manifest.read_questions if _asks(source) else manifest.read
        records: list[QuestionRecord] | list[VideoTextRecord] = read(source, videos)
        return [(record.video, record.start, record.end) for record in records]
    if holds_its_videos(source):
        raise ValueError(f"{source}: lists shards, whose videos are no files; unpack them and name their folder")
    table = open_source(source, videos.absolute())
    return [(str(table.file(video)), *table.span(video)) for video in range(table.num_videos)]


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


def _with_states(named: Sequence[Named], known: Mapping[str, State | None]) -> list[Clip]:
    """The clips with the states of their files; those elsewhere that no list tells are asked for side by side."""
    elsewhere = [video for video in dict.fromkeys(video for video, _, _ in named) if is_address(video)]
    unknown = [video for video in elsewhere if known.get(video) is None]
    states: dict[str, State | RemoteError | None] = {**known, **dict(zip(unknown, look_at_all(unknown), strict=True))}

    clips = []
    for video, start, end in named:
        state = states.get(video) if is_address(video) else _state_here(video)
        size, version = (None, None) if state is None or isinstance(state, RemoteError) else state
        clips.append(Clip(shown(video), start, end, size, version, None if shown(video) == video else video))
    return clips


def _state_here(video: str) -> State | None:
    try:
        status = os.stat(video)
    except OSError:
        return None
    return State(status.st_size, status.st_mtime_ns)
