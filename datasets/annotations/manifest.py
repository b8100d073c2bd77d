"""Our own formats, JSONL: each line is `{"video": path, "caption": text or list of texts}`, a question, a choice, or a
label.

A question is `{"video": path, "question": text, "answer": text or list of the annotators' answers}`, optionally with
`question_id` and `type`. A choice is `{"video": path, "options": list of texts, "answer": number of the right one}`,
counted from 0. A label is `{"video": path, "label": name of the class}`, optionally with `group`, the longer video
that it was cut from. `start` and `end`, in seconds, select a part of a video. `tags`, a list of texts, are what a
search may be filtered by. A line may name an image, which becomes a still clip, or an address of either.
"""

import difflib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets.annotations import strict_json
from datasets.records import (
    ChoiceRecord,
    LabelledVideos,
    LabelRecord,
    QuestionRecord,
    VideoTextRecord,
    check_video_path,
    is_image,
)
from datasets.remote.addresses import Folder, is_address, resolve
from datasets.text import check_text, has_words

Part = tuple[str, float | None, float | None]
"""A video, or its part from start to end in seconds."""

# True for the keys that every line must have.
OPTIONAL_KEYS = {"start": False, "end": False, "tags": False}
CAPTION_KEYS = {"video": True, "caption": True, **OPTIONAL_KEYS}
QUESTION_KEYS = {"video": True, "question": True, "answer": True, "question_id": False, "type": False, **OPTIONAL_KEYS}
CHOICE_KEYS = {"video": True, "options": True, "answer": True, **OPTIONAL_KEYS}
LABEL_KEYS = {"video": True, "label": True, "group": False, **OPTIONAL_KEYS}


def read(path: Path, videos: Folder) -> list[VideoTextRecord]:
    """Read a manifest into one record per distinct (video, start, end), captions in the order of the file.

    A relative `video` is resolved in `videos`, a folder or its address. Whether the files exist is not checked.
    ValueError, with file and line, for anything else than described above.
    """
    captions: dict[tuple[str, float | None, float | None], list[str]] = {}
    for _, row in _rows(path, videos, CAPTION_KEYS, _check_captions):
        captions.setdefault((row["video"], row.get("start"), row.get("end")), []).extend(row["caption"])
    return [VideoTextRecord(video, tuple(texts), start, end) for (video, start, end), texts in captions.items()]


def caption_row(line: bytes) -> dict[str, Any]:
    """One line as a dict with `video` unchanged, a list `caption`, and perhaps `start` and `end`.

    For readers of millions of lines. ValueError, without file and line, for anything else than described above.
    """
    row = _parse(line, CAPTION_KEYS)
    _check_captions(row)
    return row


def read_questions(path: Path, videos: Folder) -> list[QuestionRecord]:
    """Read a manifest of questions into one record a line, in the order of the file; all else is as in `read`.

    The weight of an answer is its share among all answers to the question. A question without `question_id` gets the
    number of its line; repeated ids are an error.
    """
    records: dict[str, QuestionRecord] = {}
    for number, row in _rows(path, videos, QUESTION_KEYS, _check_question):
        given = row.get("question_id")
        question_id = str(number if given is None else given)
        if question_id in records:
            raise ValueError(f"{path}:{number}: question_id {question_id!r} is an earlier line's too; make it another")

        counts = Counter(row["answer"])
        records[question_id] = QuestionRecord(
            video=row["video"],
            question=row["question"],
            answers=tuple(counts),
            weights=tuple(count / counts.total() for count in counts.values()),
            question_id=question_id,
            kind=row.get("type"),
            start=row.get("start"),
            end=row.get("end"),
        )
    return list(records.values())


def read_choices(path: Path, videos: Folder) -> list[ChoiceRecord]:
    """Read a manifest of choices into one record a line, in the order of the file; all else is as in `read`."""
    return [
        ChoiceRecord(row["video"], tuple(row["options"]), row["answer"], row.get("start"), row.get("end"))
        for _, row in _rows(path, videos, CHOICE_KEYS, _check_choice)
    ]


def read_tags(path: Path, videos: Folder, *, questions: bool = False) -> dict[Part, tuple[str, ...]]:
    """The tags of each (video, start, end) that has some, of captions or of questions; all else is as in `read`."""
    found: dict[Part, dict[str, None]] = {}
    keys, check = (QUESTION_KEYS, _check_question) if questions else (CAPTION_KEYS, _check_captions)
    for _, row in _rows(path, videos, keys, check):
        if row.get("tags"):
            found.setdefault((row["video"], row.get("start"), row.get("end")), {}).update(dict.fromkeys(row["tags"]))
    return {part: tuple(tags) for part, tags in found.items()}


def read_labels(path: Path, videos: Folder, classes: Sequence[str] | None = None) -> LabelledVideos:
    """Read a manifest of labels into one record a line, in the order of the file; all else is as in `read`.

    `classes` are the names by number that a trained head knows; by default the file's own, in alphabetical order. A
    whole number as a label is a name too. ValueError, with file and line, for a class that is not in `classes`.
    """
    rows = list(_rows(path, videos, LABEL_KEYS, _check_label))
    known = tuple(classes) if classes is not None else tuple(sorted({row["label"] for _, row in rows}))
    number_of = {name: number for number, name in enumerate(known)}

    records = []
    for line, row in rows:
        if row["label"] not in number_of:
            listed = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
            raise ValueError(
                f"{path}:{line}: class {row['label']!r} is not one of the {len(known)} known: {listed}; correct the "
                "label or remove the line"
            )
        number = number_of[row["label"]]
        records.append(LabelRecord(row["video"], number, row.get("group"), row.get("start"), row.get("end")))
    return LabelledVideos(records, known, path.parent.resolve().name, path.stem, f"manifest {path}")


def holds_choices(path: Path) -> bool:
    """Whether the first line has options; a line that cannot be parsed has none, and its reader will say so."""
    if not path.is_file():
        return False
    with path.open("rb") as lines:
        first = next((line for line in lines if line.strip()), b"{}")
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "options" in row


def _rows(
    path: Path, videos: Folder, keys: dict[str, bool], check: Callable[[dict[str, Any]], None]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Checked lines with their numbers, each `video` an absolute path; `check` covers what the formats do not share."""
    if not path.is_file():
        raise ValueError(f"{path}: no such manifest; set data.manifest to a JSONL file, relative ones are in data.root")
    empty = True
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            empty = False
            try:
                row = _parse(line, keys)
                check(row)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None

            named, row["video"] = row["video"], resolve(videos, row["video"])
            if not (named.startswith("/") or is_address(row["video"]) or videos.is_dir()):
                raise ValueError(f"{path}:{number}: no folder {videos} for {named!r}; set data.videos to it")
            yield number, row

    if empty:
        raise ValueError(f"{path}: the manifest is empty; write one {_example(keys)} a line")


def _example(keys: dict[str, bool]) -> str:
    return f"{{{', '.join(f'{json.dumps(key)}: ...' for key, needed in keys.items() if needed)}}}"


def _parse(line: bytes, keys: dict[str, bool]) -> dict[str, Any]:
    """Parse a line into a dict with allowed keys only, and all required ones; checks video and times."""
    try:
        row = strict_json.loads(line)
    except strict_json.RepeatedKeyError as error:
        raise ValueError(f"{error}; keep one of them") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error}); write one object a line") from None
    if not isinstance(row, dict):
        raise ValueError(f"found {type(row).__name__}, not an object; write {_example(keys)}")

    _check_keys(row, keys)
    if not isinstance(row["video"], str):
        raise ValueError(f"video is {row['video']!r}; write the path of a video or an image")
    check_video_path(row["video"])

    for key, value in row.items():
        for text in value if isinstance(value, list) else (value,):
            if isinstance(text, str):
                check_text(text, key)
    check_times(row)
    _check_tags(row)
    return row


def _check_keys(row: dict[str, Any], keys: dict[str, bool]) -> None:
    for key in row:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"a line takes {', '.join(keys)}"
            raise ValueError(f"unknown key {key!r}; {advice}")
    for key, needed in keys.items():
        if needed and key not in row:
            raise ValueError(f"no key {key!r}; add it")


def _check_tags(row: dict[str, Any]) -> None:
    tags = row.get("tags")
    if tags is None:
        return
    if not isinstance(tags, list) or not all(isinstance(tag, str) and has_words(tag) for tag in tags):
        raise ValueError(f'tags is {tags!r}; write a list of words, such as ["news", "outdoors"], or remove it')


def _check_captions(row: dict[str, Any]) -> None:
    row["caption"] = _texts(row["caption"], "caption")
    for text in row["caption"]:
        if not has_words(text):
            raise ValueError(f"caption {text!r} has no words; describe the video or remove the line")


def _check_question(row: dict[str, Any]) -> None:
    if not isinstance(row["question"], str) or not has_words(row["question"]):
        raise ValueError(f"question is {row['question']!r}; write a text with words")
    row["answer"] = _texts(row["answer"], "answer")
    for text in row["answer"]:
        if not has_words(text):
            raise ValueError(f"answer {text!r} has no words; write what is answered or remove the line")

    question_id = row.get("question_id")
    if question_id is not None and (isinstance(question_id, bool) or not isinstance(question_id, (str, int))):
        raise ValueError(f"question_id is {question_id!r}; write a text or a whole number")
    kind = row.get("type")
    if kind is not None and (not isinstance(kind, str) or not has_words(kind)):
        raise ValueError(f"type is {kind!r}; write the type of the question in words, or remove it")


def _check_choice(row: dict[str, Any]) -> None:
    options, answer = row["options"], row["answer"]
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(text, str) for text in options):
        raise ValueError(f"options is {options!r}; write a list of at least two texts")
    for text in options:
        if not has_words(text):
            raise ValueError(f"option {text!r} has no words; write what might describe the video")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(options):
        raise ValueError(f"answer is {answer!r}; write the number of the right one of {len(options)} options, from 0")


def _check_label(row: dict[str, Any]) -> None:
    label, group = row["label"], row.get("group")
    if isinstance(label, bool) or not isinstance(label, (str, int)) or not has_words(str(label)):
        raise ValueError(f"label is {label!r}; write the name of the class, or its number")
    row["label"] = str(label).strip()
    if group is not None and (not isinstance(group, str) or not has_words(group)):
        raise ValueError(f"group is {group!r}; write the name of the longer video it was cut from, or remove it")


def _texts(value: Any, key: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{key} is {value!r}; write a text or a list of at least one text")
    return texts


def check_times(row: dict[str, Any]) -> None:
    """ValueError, without file and line, if `start` or `end` is invalid, or is given for an image."""
    for key in ("start", "end"):
        time = row.get(key)
        if time is None:
            continue
        # Not `math.isfinite`, which raises for integers too large for a float.
        if isinstance(time, bool) or not isinstance(time, (int, float)) or not 0 <= time < math.inf:
            raise ValueError(f"{key} is {time!r}; write seconds from the beginning, 0 or more")
        if is_image(row["video"]):
            raise ValueError(f"{key} has no effect on an image; remove it")

    start, end = row.get("start"), row.get("end")
    if end is not None and (start or 0) >= end:
        raise ValueError(
            f"start {start or 0} is not before end {end}; write the seconds where the part begins and where it ends"
        )
