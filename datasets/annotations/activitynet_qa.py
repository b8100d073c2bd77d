"""ActivityNet-QA: ten questions per video, with one answer each, of nine types."""

from pathlib import Path

from datasets.annotations import vindlu
from datasets.annotations.files import GET_IT_AGAIN, Row, by_unique, items_of, json_of
from datasets.annotations.layout import AUTHORS, Format, VideoFolder, check_split, choose
from datasets.records import SINGLE_ANSWER_WEIGHT, Annotations, QuestionRecord
from datasets.remote.addresses import Folder

SPLITS = ("train", "val", "test")
KINDS = (
    *("motion", "spatial relationship", "temporal relationship"),
    *("yes/no", "color", "object", "location", "number", "other"),
)
"""The authors' types 0 to 8: three types of questions; free questions are typed by their answer, in six types."""


def read(root: Path, split: str, videos: Folder) -> Annotations:
    """Read `{split}_q.json` (video_name, question, question_id) and `{split}_a.json` (question_id, answer, type), or
    VindLU's `anet_qa_{split}.json`.

    Videos are called `v_` plus the name. Departs from the reference, whose validation set is a random fiftieth of this.
    """
    check_split("activitynet_qa", split, SPLITS)
    formats = (
        Format(AUTHORS, (f"{split}_q.json", f"{split}_a.json")),
        Format(vindlu.VINDLU, (f"anet_qa_{split}.json",)),
    )
    found = choose("activitynet_qa", split, root, formats)
    if found.format.whose == vindlu.VINDLU:
        records, names = vindlu.read_questions(found.paths[0], VideoFolder(videos))
        return Annotations(records, "activitynet_qa", split, found.source, names=names)

    questions, answers = (by_unique(items_of(json_of(path), str(path)), "question_id") for path in found.paths)

    # Every question needs an answer, and every answer a question.
    for rows, others, path in ((questions, answers, found.paths[1]), (answers, questions, found.paths[0])):
        for question_id, row in rows.items():
            if question_id not in others:
                raise ValueError(f"{row.place}: {question_id!r} is not in {path}; get both files from one place")

    folder = VideoFolder(videos)
    names = tuple(f"v_{row.text('video_name')}" for row in questions.values())
    records = [
        QuestionRecord(
            video=folder.path(name),
            question=row.text("question"),
            answers=(answers[question_id].text("answer"),),
            weights=(SINGLE_ANSWER_WEIGHT,),
            question_id=question_id,
            kind=_kind(answers[question_id]),
        )
        for name, (question_id, row) in zip(names, questions.items(), strict=True)
    ]
    return Annotations(records, "activitynet_qa", split, found.source, names=names)


def _kind(answer: Row) -> str:
    number = answer.value("type")
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(KINDS):
        raise ValueError(f"{answer.place}: type is {number!r}, not a number from 0 to {len(KINDS) - 1}; {GET_IT_AGAIN}")
    return KINDS[number]
