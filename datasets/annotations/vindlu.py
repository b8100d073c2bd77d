"""VindLU's repackaged annotations, which UMT and vid-TLDR read: each file is one JSON list of objects.

A video is `{"video": name, "caption": text or list of texts}`; where several videos share a text, `{"caption": text,
"video": list of names}`. A question is `{"video", "question", "answer": text or list of annotators' answers,
"question_id"}`, a choice `{"video", "caption": list of texts, "answer": number of the right one}`. Other keys, such as
`duration`, are ignored.
"""

import reprlib
from collections import Counter
from pathlib import Path

from datasets.annotations.files import GET_IT_AGAIN, Row, items_of, json_of
from datasets.annotations.layout import VideoFolder
from datasets.records import ChoiceRecord, QuestionRecord

VINDLU = "VindLU's repackaged annotations"


def read_captions(path: Path) -> dict[str, list[str]]:
    """The captions of each video; rows of one video are joined in the order of the file."""
    captions: dict[str, list[str]] = {}
    for row in items_of(json_of(path), str(path)):
        captions.setdefault(row.text("video"), []).extend(texts_of(row, "caption"))
    return captions


def read_paragraphs(path: Path) -> dict[str, list[str]]:
    """The paragraph of each video: the sentences of its list; a video with several rows has several paragraphs."""
    paragraphs: dict[str, list[str]] = {}
    for row in items_of(json_of(path), str(path)):
        paragraphs.setdefault(row.text("video"), []).append(row.paragraph("caption"))
    return paragraphs


def read_shared_captions(path: Path) -> dict[str, list[str]]:
    """The captions of each video, from rows of a caption and the videos that share it."""
    captions: dict[str, list[str]] = {}
    for row in items_of(json_of(path), str(path)):
        for name in texts_of(row, "video"):
            captions.setdefault(name, []).append(row.text("caption"))
    return captions


def read_questions(path: Path, folder: VideoFolder) -> tuple[list[QuestionRecord], tuple[str, ...]]:
    """The questions, and the names of their videos; an answer weighs its share among the annotators'.

    Without `question_id` a question has the number of its row.
    """
    records: dict[str, QuestionRecord] = {}
    names = []
    for number, row in enumerate(items_of(json_of(path), str(path))):
        question_id = str(row.fields.get("question_id", number))
        if question_id in records:
            raise ValueError(f"{row.place}: question_id {question_id!r} is an earlier item's too; {GET_IT_AGAIN}")

        counts = Counter(texts_of(row, "answer"))
        names.append(row.text("video"))
        records[question_id] = QuestionRecord(
            video=folder.path(names[-1]),
            question=row.text("question"),
            answers=tuple(counts),
            weights=tuple(count / counts.total() for count in counts.values()),
            question_id=question_id,
        )
    return list(records.values()), tuple(names)


def read_choices(path: Path, folder: VideoFolder) -> tuple[list[ChoiceRecord], tuple[str, ...]]:
    """The choices, and the names of their videos."""
    rows = items_of(json_of(path), str(path))
    names = tuple(row.text("video") for row in rows)
    return [choice_of(row, folder.path(name), "caption") for row, name in zip(rows, names, strict=True)], names


def choice_of(row: Row, video: str, key: str) -> ChoiceRecord:
    """A row with at least two options under `key`, and the number of the right one, from 0, under `answer`."""
    options, answer = texts_of(row, key), row.value("answer")
    if len(options) < 2:
        raise ValueError(f"{row.place}: {key} has a single text; a choice has at least two; {GET_IT_AGAIN}")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(options):
        raise ValueError(
            f"{row.place}: answer is {reprlib.repr(answer)}, not the number of one of {len(options)} options, from 0"
        )
    return ChoiceRecord(video, tuple(options), answer)


def texts_of(row: Row, key: str) -> list[str]:
    """The text, or the texts, under `key`; ValueError for anything else, and for blank ones."""
    value = row.value(key)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"{row.place}: {key} is {reprlib.repr(value)}, not a text or a list of texts; {GET_IT_AGAIN}")
    return texts
