"""ActivityNet-QA: questions and answers joined by their ids, with their types in words."""

from pathlib import Path
from typing import Any

import pytest

from datasets.annotations import activitynet_qa
from datasets.records import QuestionRecord
from tests.datasets.annotations.folders import error_of, touch, write_json

QUESTIONS = [
    {"video_name": "_b", "question": "is it day ", "question_id": "v__b_1"},
    {"video_name": "a", "question": "how many dogs", "question_id": "v_a_2"},
]
ANSWERS = [
    {"answer": "2", "type": 7, "question_id": "v_a_2"},
    {"answer": "yes", "type": 3, "question_id": "v__b_1"},
]
# Video, question, answer, type.
FIVE = {
    "v_1QIUV7WYKXg_3": ("v_1QIUV7WYKXg", "is the athlete wearing trousers", "no", "yes/no"),
    "v_NJRrhNrEMsk_1": ("v_NJRrhNrEMsk", "what is the person in the video doing", "tires dismantling", "motion"),
    "v_i8hNrK3r_MY_5": (
        "v_i8hNrK3r_MY",
        "what happened when the person in the red pants assembles the front tire",
        "assembled rear tire",
        "temporal relationship",
    ),
    "v_H33jSILKmfI_2": ("v_H33jSILKmfI", "is the boxing man in a white clothes", "yes", "yes/no"),
    "v_XqW8wjFpGRU_3": ("v_XqW8wjFpGRU", "are the people in the video dancing indoors", "no", "yes/no"),
}


def write(root: Path, questions: object = QUESTIONS, answers: object = ANSWERS) -> Path:
    write_json(root / "val_q.json", questions)
    write_json(root / "val_a.json", answers)
    return root


def test_questions_keep_their_order_and_find_their_answers(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", "v__b.webm")
    annotations = activitynet_qa.read(write(tmp_path), "val", videos)
    assert annotations.records == [
        QuestionRecord(str(videos / "v__b.webm"), "is it day ", ("yes",), (0.2,), "v__b_1", "yes/no"),
        QuestionRecord(str(videos / "v_a.mp4"), "how many dogs", ("2",), (0.2,), "v_a_2", "number"),
    ]
    assert (annotations.dataset, annotations.split, annotations.labelled) == ("activitynet_qa", "val", True)
    assert annotations.source == "the authors' own annotations (val_q.json, val_a.json)"


def changed(rows: list[dict[str, Any]], position: int, **fields: object) -> list[dict[str, Any]]:
    return [row | fields if number == position else row for number, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("questions", "answers", "file", "found"),
    [
        ({}, ANSWERS, "val_q.json", ": found an empty dict, not a list"),
        (QUESTIONS, [], "val_a.json", ": found an empty list"),
        (QUESTIONS, ANSWERS[:1], "val_q.json", ": item 0: 'v__b_1' is not in "),
        (QUESTIONS[:1], ANSWERS, "val_a.json", ": item 0: 'v_a_2' is not in "),
        ([*QUESTIONS, QUESTIONS[0]], ANSWERS, "val_q.json", ": item 2: question_id 'v__b_1' stands at "),
        (QUESTIONS, [*ANSWERS, ANSWERS[1]], "val_a.json", ": item 2: question_id 'v__b_1' stands at "),
        (changed(QUESTIONS, 1, question=None), ANSWERS, "val_q.json", ": item 1: question is None, not a text"),
        (changed(QUESTIONS, 1, video_name=""), ANSWERS, "val_q.json", ": item 1: video_name is '', not a text"),
        (QUESTIONS, changed(ANSWERS, 0, answer=2), "val_a.json", ": item 0: answer is 2, not a text"),
        (QUESTIONS, changed(ANSWERS, 0, type=9), "val_a.json", ": item 0: type is 9, not a number from 0 to 8"),
        (QUESTIONS, changed(ANSWERS, 0, type=True), "val_a.json", ": item 0: type is True, not a number"),
        (QUESTIONS, changed(ANSWERS, 0, type="7"), "val_a.json", ": item 0: type is '7', not a number"),
        ([{"video_name": "a", "question": "x"}], ANSWERS, "val_q.json", ": item 0: no key 'question_id'"),
    ],
)
def test_bad_files(tmp_path: Path, questions: object, answers: object, file: str, found: str) -> None:
    write(tmp_path, questions, answers)
    assert error_of(lambda: activitynet_qa.read(tmp_path, "val", tmp_path)).startswith(f"{tmp_path / file}{found}")


@pytest.mark.parametrize(
    ("split", "questions", "videos"), [("train", 32000, 3200), ("val", 18000, 1800), ("test", 8000, 800)]
)
def test_real_counts(real_data: Path, split: str, questions: int, videos: int) -> None:
    records = activitynet_qa.read(real_data / "annotations/activitynet_qa", split, Path("/videos")).records
    assert len(records) == len({record.question_id for record in records}) == questions
    assert len({record.video for record in records}) == videos
    # One question of each of these types about every video, as the authors say.
    kinds = [record.kind for record in records]
    assert {kinds.count(kind) for kind in activitynet_qa.KINDS[:3]} == {videos}
    # The words fit the numbers.
    yes_no = [record.answers[0] in ("yes", "no") for record in records if record.kind == "yes/no"]
    how_many = [record.question.startswith("how many") for record in records if record.kind == "number"]
    color = ["color" in record.question for record in records if record.kind == "color"]
    for share in (yes_no, how_many, color):
        assert sum(share) > 0.9 * len(share)


def test_five_real_questions_word_by_word(real_data: Path) -> None:
    root = real_data / "annotations/activitynet_qa"
    records = [record for split in ("test", "train") for record in activitynet_qa.read(root, split, Path("/v")).records]
    found = {
        record.question_id: (Path(record.video).stem, record.question, *record.answers, record.kind)
        for record in records
        if record.question_id in FIVE
    }
    assert found == FIVE
