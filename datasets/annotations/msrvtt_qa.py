"""MSR-VTT-QA: questions made from MSR-VTT's captions, with one answer each, on the authors' split of the videos."""

from dataclasses import replace
from pathlib import Path

from datasets.annotations import vindlu
from datasets.annotations.files import GET_IT_AGAIN, Row, by_unique, items_of, json_lines_of, json_of
from datasets.annotations.layout import AUTHORS, RELEASE, Format, VideoFolder, check_split, choose
from datasets.annotations.question_kinds import kind_of
from datasets.records import SINGLE_ANSWER_WEIGHT, Annotations, QuestionRecord
from datasets.remote.addresses import Folder

SPLITS = ("train", "val", "test")


def read(root: Path, split: str, videos: Folder) -> Annotations:
    """Read the reference's `{split}.jsonl` (video_id, question, answer), the authors' `{split}_qa.json`, or VindLU's
    `msrvtt_qa_{split}.json`.

    The authors' file is a list of (id, video_id, question, answer, category_id), where `video_id` is a number. The
    reference's rows have no id; their position, counted from 0, is used instead.
    """
    check_split("msrvtt_qa", split, SPLITS)
    formats = (
        Format(RELEASE, (f"{split}.jsonl",)),
        Format(AUTHORS, (f"{split}_qa.json",)),
        Format(vindlu.VINDLU, (f"msrvtt_qa_{split}.json",)),
    )
    found = choose("msrvtt_qa", split, root, formats)

    path = found.paths[0]
    if found.format.whose == vindlu.VINDLU:
        records, video_names = vindlu.read_questions(path, VideoFolder(videos))
        records = [replace(record, kind=kind_of(record.question)) for record in records]
        return Annotations(records, "msrvtt_qa", split, found.source, names=video_names)

    if found.format.whose == RELEASE:
        rows = {str(position): row for position, row in enumerate(json_lines_of(path))}
        names = {question_id: row.text("video_id") for question_id, row in rows.items()}
    else:
        numbered = [
            Row(row.place, row.fields | {"id": _number(row, "id")}) for row in items_of(json_of(path), str(path))
        ]
        rows = by_unique(numbered, "id")
        names = {question_id: f"video{_number(row, 'video_id')}" for question_id, row in rows.items()}

    folder = VideoFolder(videos)
    records = [
        QuestionRecord(
            video=folder.path(names[question_id]),
            question=row.text("question"),
            answers=(row.text("answer"),),
            weights=(SINGLE_ANSWER_WEIGHT,),
            question_id=question_id,
            kind=kind_of(row.text("question")),
        )
        for question_id, row in rows.items()
    ]
    return Annotations(records, "msrvtt_qa", split, found.source, names=tuple(names.values()))


def _number(row: Row, key: str) -> str:
    number = row.value(key)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(f"{row.place}: {key} is {number!r}, not a number; {GET_IT_AGAIN}")
    return str(number)
