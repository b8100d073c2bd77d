"""MSVD-QA: questions made from MSVD's captions by a program, about its videos 1 to 1970 by number."""

from pathlib import Path

from datasets.annotations import vindlu
from datasets.annotations.files import GET_IT_AGAIN, Row, by_unique, csv_of, items_of, json_of, lines_of
from datasets.annotations.layout import AUTHORS, Format, VideoFolder, check_split, choose, find_file
from datasets.annotations.question_kinds import kind_of
from datasets.records import SINGLE_ANSWER_WEIGHT, Annotations, QuestionRecord
from datasets.remote.addresses import Folder

SPLITS = ("train", "val", "test")
HQGA = "HQGA's tables"
COLUMNS = ("video", "question", "answer", "qid")
NAMES = ("youtube_mapping.txt", "id_mapping.json")
"""Files that give the name of each numbered video: lines `NAME vidNUMBER`, or an object of names by number."""


def read(root: Path, split: str, videos: Folder) -> Annotations:
    """Read the authors' `{split}_qa.json`, HQGA's `{split}.csv`, or VindLU's `msvd_qa_{split}.json`.

    The authors' rows (id, video_id, question, answer) and HQGA's (qid, video, question, answer) number the videos. The
    files are found by MSVD's names if one of `NAMES` lies beside the questions, else as `vidNUMBER`.
    """
    check_split("msvd_qa", split, SPLITS)
    formats = (
        Format(AUTHORS, (f"{split}_qa.json",)),
        Format(HQGA, (f"{split}.csv",)),
        Format(vindlu.VINDLU, (f"msvd_qa_{split}.json",)),
    )
    found = choose("msvd_qa", split, root, formats)
    path = found.paths[0]
    folder = VideoFolder(videos, expected=".avi")
    if found.format.whose == vindlu.VINDLU:
        records, names = vindlu.read_questions(path, folder)
        return Annotations(records, "msvd_qa", split, found.source, names=names)

    if found.format.whose == AUTHORS:
        rows, id_key, video_key = items_of(json_of(path), str(path)), "id", "video_id"
    else:
        rows, id_key, video_key = csv_of(path, COLUMNS), "qid", "video"

    numbered = [Row(row.place, row.fields | {id_key: str(_number(row, id_key))}) for row in rows]
    by_id = by_unique(numbered, id_key)
    names_by_number = _names(root)
    names = tuple(_name(row, _number(row, video_key), names_by_number) for row in by_id.values())
    records = [
        QuestionRecord(
            video=folder.path(name),
            question=row.text("question"),
            answers=(row.text("answer"),),
            weights=(SINGLE_ANSWER_WEIGHT,),
            question_id=question_id,
            kind=kind_of(row.text("question")),
        )
        for name, (question_id, row) in zip(names, by_id.items(), strict=True)
    ]
    return Annotations(records, "msvd_qa", split, found.source, names=names)


def _number(row: Row, key: str) -> int:
    """A number, or in a table its digits."""
    value = row.value(key)
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{row.place}: {key} is {value!r}, not a number; {GET_IT_AGAIN}")
    return value


def _names(root: Path) -> dict[int, str] | None:
    """MSVD's names by number; None if no file beside the questions has them."""
    paths = [path for name in NAMES if (path := find_file(name, root)) is not None]
    if not paths:
        return None
    path = paths[0]

    names: dict[int, str] = {}
    for place, name, number in _pairs(path):
        if not number.isdecimal():
            raise ValueError(f"{place}: {number!r} is not the number of a video; {GET_IT_AGAIN}")
        names[int(number)] = name
    return names


def _pairs(path: Path) -> list[tuple[str, str, str]]:
    """(place, name, digits of the number) of each entry."""
    if path.suffix != ".json":
        split = [(place, *line.rpartition(" ")[::2]) for place, line in lines_of(path)]
        return [(place, name.strip(), number.removeprefix("vid")) for place, name, number in split]
    content = json_of(path)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
        raise ValueError(f"{path}: not an object of names by number; {GET_IT_AGAIN}")
    return [(f"{path}: {number!r}", name, number) for number, name in content.items()]


def _name(row: Row, number: int, names: dict[int, str] | None) -> str:
    if names is None:
        return f"vid{number}"
    if number not in names:
        raise ValueError(f"{row.place}: video {number} is not among the {len(names)} named ones; {GET_IT_AGAIN}")
    return names[number]
