"""Videos with timed speech: from our own manifest, from subtitles beside the videos, and from YT-Temporal."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from datasets.annotations.asr import align
from datasets.annotations.files import GET_IT_AGAIN, Row, items_of, json_lines_of, json_of, lines_of
from datasets.annotations.layout import VIDEO_SUFFIXES
from datasets.annotations.subtitles import SUFFIXES, read_subtitles
from datasets.annotations.timed_words import TimedWord, check_spoken
from datasets.records import check_video_path
from datasets.remote.addresses import Folder, resolve
from datasets.text import check_text

LISTS = {"train": "yttemporal_train.csv", "val": "yttemporal_val.csv"}


@dataclass(frozen=True)
class SpokenRecord:
    """A video and its words in order of time; `duration` in seconds if the annotations give it."""

    video: str
    words: tuple[TimedWord, ...]
    duration: float | None = None


def read_manifest(path: Path, videos: Folder) -> list[SpokenRecord]:
    """Read JSONL of `{"video": path, "words": [[time, word], ...]}`, perhaps with `duration`, all times in seconds.

    ValueError, with file and line, for anything else, for words that are not in order of time and for none.
    """
    return [
        replace(record, video=resolve(videos, record.video)) for record in map(manifest_record, json_lines_of(path))
    ]


def manifest_record(row: Row) -> SpokenRecord:
    """One line of a manifest, its `video` unchanged; ValueError for anything else than `read_manifest` describes."""
    video = row.text("video")
    unknown = row.fields.keys() - {"video", "words", "duration"}
    if unknown:
        raise ValueError(f"{row.place}: unknown key {min(unknown)!r}; a line has video, words and perhaps duration")
    try:
        check_video_path(video)
    except ValueError as error:
        raise ValueError(f"{row.place}: {error}") from None

    duration = row.fields.get("duration")
    if duration is not None and not (_is_time(duration) and duration > 0):
        raise ValueError(f"{row.place}: duration {duration!r} is not a number of seconds above 0")

    words = _words(row)
    try:
        check_spoken(words)
    except ValueError as error:
        raise ValueError(f"{row.place}: {error}; remove the line") from None
    return SpokenRecord(video, words, duration)


def _words(row: Row) -> tuple[TimedWord, ...]:
    pairs = row.value("words")
    if not isinstance(pairs, list) or not pairs:
        raise ValueError(f"{row.place}: words is {pairs!r}; write [[time, word], ...] with at least one word")
    words: list[TimedWord] = []
    for number, pair in enumerate(pairs):
        is_pair = isinstance(pair, list) and len(pair) == 2 and _is_time(pair[0]) and isinstance(pair[1], str)
        if not is_pair:
            raise ValueError(f"{row.place}: word {number} is {pair!r}; write [time in seconds, word]")
        check_text(pair[1], f"{row.place}: word {number}")
        if words and pair[0] < words[-1].time:
            raise ValueError(f"{row.place}: word {number} at {pair[0]:g} s is before the word above it; sort the words")
        words.append(TimedWord(float(pair[0]), pair[1]))
    return tuple(words)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def read_folder(root: Path) -> list[SpokenRecord]:
    """The videos of a folder, and of folders below it, that have subtitles of the same name beside them.

    `talk.mp4` has `talk.vtt`, `talk.srt` or `talk.en.vtt`. ValueError if no video has any.
    """
    # `talk.en.vtt` belongs to `talk.en` and to `talk`.
    subtitles: dict[Path, Path] = {}
    for path in sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES):
        for stem in (path.with_suffix(""), path.with_suffix("").with_suffix("")):
            subtitles.setdefault(stem, path)

    videos = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    records = [
        SpokenRecord(str(video.absolute()), tuple(read_subtitles(subtitles[video.with_suffix("")])))
        for video in videos
        if video.with_suffix("") in subtitles
    ]
    if not records:
        raise ValueError(f"{root}: none of its {len(videos)} videos has subtitles (.vtt or .srt) of its name beside it")
    return records


def read_yt_temporal(root: Path, split: str, videos: Path) -> Iterator[SpokenRecord]:
    """YT-Temporal as TVTSv2 lays it out: a list with a column `Name`, and a JSON file of speech for each video.

    A name is `part/data/ID.mp4`; its speech is in `part/annotations/ID.json` below `videos`. Words are aligned
    with the denoised speech, which takes a while, so records are yielded one at a time.
    """
    path = next(
        (folder / LISTS[split] for folder in (root, root / "meta_data") if (folder / LISTS[split]).is_file()), None
    )
    if path is None:
        raise ValueError(f"data.root: {root} (or its folder meta_data) lacks {LISTS[split]}; {GET_IT_AGAIN}")

    return yt_temporal_records(path, videos)


def yt_temporal_records(path: Path, videos: Path) -> Iterator[SpokenRecord]:
    """The videos of one of YT-Temporal's lists, as `read_yt_temporal` yields them."""
    (place, header), *rows = lines_of(path)
    columns = header.split("\t")
    if "Name" not in columns:
        raise ValueError(f"{place}: no column Name in {', '.join(columns)}; {GET_IT_AGAIN}")

    for place, line in rows:
        name = line.split("\t")[columns.index("Name")]
        part = PurePosixPath(name).parts[0]
        speech = videos / part / "annotations" / f"{PurePosixPath(name).stem}.json"
        if not speech.is_file():
            raise ValueError(f"{place}: no file {speech} with what is spoken in {name}; {GET_IT_AGAIN}")
        yield read_speech(speech, videos / name)


def read_speech(path: Path, video: Path) -> SpokenRecord:
    """One JSON file of YT-Temporal, as MERLOT publishes them: `subtitles`, `denoised` and `info`."""
    content = json_of(path)
    if not isinstance(content, dict) or not {"subtitles", "denoised", "info"} <= content.keys():
        raise ValueError(f"{path}: not an object with subtitles, denoised and info; {GET_IT_AGAIN}")

    # A list may be empty: in some videos nothing is spoken.
    subtitles, denoised_items = (
        [] if content[name] == [] else items_of(content[name], f"{path}: {name}") for name in ("subtitles", "denoised")
    )
    words = []
    for row in subtitles:
        time, word = row.value("time"), row.value("word")
        if not _is_time(time) or not isinstance(word, str):
            raise ValueError(f"{row.place}: {word!r} at {time!r} is not a word at a time; {GET_IT_AGAIN}")
        words.append(TimedWord(float(time), word))

    denoised = [row.text("cleanasr") for row in denoised_items]
    info = content["info"]
    duration = info.get("duration") if isinstance(info, dict) else None
    if not _is_time(duration):
        raise ValueError(f"{path}: info.duration is {duration!r}, not a number of seconds; {GET_IT_AGAIN}")
    return SpokenRecord(str(video.absolute()), tuple(align(words, denoised)), duration)
