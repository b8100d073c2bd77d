"""Closed lists of answers in both forms, and what is wrong with others."""

import json
from pathlib import Path
from typing import Any

import pytest

from datasets.annotations import answer_list
from tests.datasets.annotations.folders import error_of, write_json


def test_a_list_and_numbered_answers_are_read_in_order(tmp_path: Path) -> None:
    write_json(tmp_path / "list.json", ["man", "ball", "two"])
    assert answer_list.read(tmp_path, "list.json") == ["man", "ball", "two"]
    (tmp_path / "annotations").mkdir()
    write_json(tmp_path / "annotations" / "numbered.json", {"ball": 1, "man": 0, "two": 2})
    assert answer_list.read(tmp_path, "numbered.json") == ["man", "ball", "two"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (["man", 3], "item 1: answer is 3, not a text with words"),
        (["man", "?"], "item 1: answer is '?', not a text with words"),
        (["man", "a", "man"], "item 2: 'man' stands twice"),
        ({"man": "0"}, "'man': number is '0'"),
        ([], "found list, not a list of answers"),
        ("man", "found str, not a list of answers"),
    ],
)
def test_bad_lists_are_named(tmp_path: Path, content: Any, found: str) -> None:
    path = write_json(tmp_path / "bad.json", content)
    assert error_of(lambda: answer_list.read(tmp_path, "bad.json")).startswith(f"{path}: {found}")
    assert error_of(lambda: answer_list.read(tmp_path, "gone.json")).startswith(f"{tmp_path / 'gone.json'}: no such")


def test_real_lists(real_data: Path) -> None:
    folder = real_data / "annotations"
    for name, file, count in (("msrvtt_qa", "train_ans2label.json", 1500), ("msvd_qa/hqga", "ans_word.json", 1852)):
        answers = answer_list.read(folder / name, file)
        assert len(answers) == count
        assert set(answers) == set(json.loads((folder / name / file).read_text()))
