"""MSR-VTT-QA: questions with numbers for videos, or with their names."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.annotations import msrvtt_qa
from datasets.records import QuestionRecord
from tests.datasets.annotations.folders import error_of, touch, write_json, write_lines

AUTHORS = [
    {"id": 158581, "video_id": 6513, "question": "what is shown?", "answer": "couch", "category_id": 14},
    {"id": 158580, "video_id": 7, "question": "Who sings?", "answer": "man", "category_id": 1},
    {"id": 158582, "video_id": 7, "question": "is it day?", "answer": "yes", "category_id": 1},
]
RELEASE = [
    {"video_id": f"video{row['video_id']}", "question": row["question"], "answer": row["answer"]} for row in AUTHORS
]


def records(videos: Path, ids: list[str]) -> list[QuestionRecord]:
    return [
        QuestionRecord(str(videos / "video6513.mp4"), "what is shown?", ("couch",), (0.2,), ids[0], "what"),
        QuestionRecord(str(videos / "video7.avi"), "Who sings?", ("man",), (0.2,), ids[1], "who"),
        QuestionRecord(str(videos / "video7.avi"), "is it day?", ("yes",), (0.2,), ids[2], "other"),
    ]


def test_the_authors_file(tmp_path: Path) -> None:
    write_json(tmp_path / "test_qa.json", AUTHORS)
    videos = touch(tmp_path / "videos", "video7.avi")
    annotations = msrvtt_qa.read(tmp_path, "test", videos)
    assert annotations.records == records(videos, ["158581", "158580", "158582"])
    assert (annotations.dataset, annotations.split, annotations.labelled) == ("msrvtt_qa", "test", True)


def test_the_references_file_comes_first_and_numbers_its_rows(tmp_path: Path) -> None:
    write_json(tmp_path / "test_qa.json", AUTHORS)
    write_lines(tmp_path / "test.jsonl", RELEASE)
    videos = touch(tmp_path / "videos", "video7.avi")
    annotations = msrvtt_qa.read(tmp_path, "test", videos)
    assert annotations.records == records(videos, ["0", "1", "2"])
    assert annotations.source.endswith("(test.jsonl); there but not read: test_qa.json")


@pytest.mark.parametrize(
    ("file", "rows", "found"),
    [
        ("test_qa.json", {"a": AUTHORS}, ": found dict, not a list"),
        ("test_qa.json", [*AUTHORS, AUTHORS[0]], ": item 3: id '158581' stands at "),
        ("test_qa.json", [AUTHORS[0] | {"id": None}], ": item 0: id is None, not a number"),
        ("test_qa.json", [AUTHORS[0] | {"video_id": "video7"}], ": item 0: video_id is 'video7', not a number"),
        ("test_qa.json", [AUTHORS[0] | {"video_id": -1}], ": item 0: video_id is -1, not a number"),
        ("test_qa.json", [AUTHORS[0] | {"answer": ""}], ": item 0: answer is '', not a text"),
        ("test_qa.json", [{"id": 1, "video_id": 2, "answer": "x"}], ": item 0: no key 'question'"),
        ("test.jsonl", [RELEASE[0], RELEASE[1] | {"video_id": 7}], ":2: video_id is 7, not a text"),
        ("test.jsonl", [{"video_id": "video7", "question": "x"}], ":1: no key 'answer'"),
    ],
)
def test_bad_files(tmp_path: Path, file: str, rows: list[object], found: str) -> None:
    (write_json if file.endswith("json") else write_lines)(tmp_path / file, rows)
    assert error_of(lambda: msrvtt_qa.read(tmp_path, "test", tmp_path)).startswith(f"{tmp_path / file}{found}")


def test_real_questions_in_both_forms(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "annotations/msrvtt_qa"
    (tmp_path / "val_qa.json").symlink_to(root / "val_qa.json")
    release = msrvtt_qa.read(root, "val", Path("/videos"))
    authors = msrvtt_qa.read(tmp_path, "val", Path("/videos"))
    assert release.source.endswith("(val.jsonl); there but not read: val_qa.json")
    assert len(release.records) == 12278 and len({record.video for record in release.records}) == 497
    assert [replace(record, question_id="") for record in release.records] == [
        replace(record, question_id="") for record in authors.records
    ]
    kinds = [json.loads(line)["answer_type"] for line in (root / "val.jsonl").read_text().splitlines()]
    assert [record.kind for record in release.records] == kinds
