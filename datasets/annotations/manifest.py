"""Our own format: a JSONL file with one `{"video": path, "caption": text or list of texts}` a line.

`start` and `end`, in seconds, choose a part of a video. A line may name an image, which becomes a still clip.
"""

import difflib
import json
import math
from pathlib import Path
from typing import Any

from datasets.records import VideoTextRecord, is_image

KEYS = ("video", "caption", "start", "end")


def read(path: Path, videos: Path) -> list[VideoTextRecord]:
    """Read a manifest into one record per distinct (video, start, end), captions in the order of the file.

    A relative `video` is looked for in `videos`. Whether the files are there is not checked. ValueError, with file and
    line, for anything that is not as described.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such manifest; set data.manifest to a JSONL file, relative ones are in data.root")
    captions: dict[tuple[str, float | None, float | None], list[str]] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = _parse(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
            if not Path(row["video"]).is_absolute() and not videos.is_dir():
                raise ValueError(f"{path}:{number}: no folder {videos} for {row['video']!r}; set data.videos to it")
            video = str((videos / row["video"]).absolute())
            captions.setdefault((video, row.get("start"), row.get("end")), []).extend(row["caption"])
    if not captions:
        raise ValueError(f'{path}: the manifest is empty; write one {{"video": ..., "caption": ...}} a line')
    return [VideoTextRecord(video, tuple(texts), start, end) for (video, start, end), texts in captions.items()]


def _parse(line: bytes) -> dict[str, Any]:
    """The line as a dict with `video`, a list `caption`, and `start` and `end` if given. ValueError says what to do."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error}); write one object a line") from None
    if not isinstance(row, dict):
        raise ValueError(f'found {type(row).__name__}, not an object; write {{"video": ..., "caption": ...}}')
    _check_keys(row)
    if not isinstance(row["video"], str) or not row["video"]:
        raise ValueError(f"video is {row['video']!r}; write the path of a video or an image")
    texts = [row["caption"]] if isinstance(row["caption"], str) else row["caption"]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"caption is {row['caption']!r}; write a text or a list of at least one text")
    for text in texts:
        if not any(character.isalnum() for character in text):
            raise ValueError(f"caption {text!r} has no words; describe the video or remove the line")
    _check_times(row)
    return row | {"caption": texts}


def _check_keys(row: dict[str, Any]) -> None:
    for key in row:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"a line takes {', '.join(KEYS)}"
            raise ValueError(f"unknown key {key!r}; {advice}")
    for key in ("video", "caption"):
        if key not in row:
            raise ValueError(f"no key {key!r}; add it")


def _check_times(row: dict[str, Any]) -> None:
    for key in ("start", "end"):
        time = row.get(key)
        if time is None:
            continue
        if isinstance(time, bool) or not isinstance(time, (int, float)) or not math.isfinite(time) or time < 0:
            raise ValueError(f"{key} is {time!r}; write seconds from the beginning, 0 or more")
        if is_image(row["video"]):
            raise ValueError(f"{key} has no effect on an image; remove it")
    start, end = row.get("start"), row.get("end")
    if end is not None and (start or 0) >= end:
        raise ValueError(
            f"start {start or 0} is not before end {end}; write the seconds where the part begins and where it ends"
        )
