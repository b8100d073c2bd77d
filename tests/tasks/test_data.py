"""Which records each part of the data is, and what is missing of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.schema import DataConfig
from datasets.annotations import public
from datasets.records import Annotations, QuestionRecord, VideoTextRecord
from tasks.annotations import PARTS, NamedFiles, named_files, read_split, setting_of
from tasks.data import clean_up, video_text
from tests.tiny_runs import config, write_data, write_questions


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, captions in (("captions", [1, 1, 1]), ("eval", [2, 1]), ("test", [1, 3, 1])):
        write_data(tmp_path, captions, f"{name}.jsonl", real=False)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "train", "chosen_on", "tested_on"),
    [
        ({}, "captions", "captions", "captions"),
        ({"eval_manifest": "eval.jsonl"}, "captions", "eval", "eval"),
        ({"eval_manifest": "eval.jsonl", "test_manifest": "test.jsonl"}, "captions", "eval", "test"),
        ({"test_manifest": "test.jsonl"}, "captions", "captions", "test"),
    ],
)
def test_the_test_set_is_the_last_that_is_named(
    root: Path, given: dict[str, str], train: str, chosen_on: str, tested_on: str
) -> None:
    settings = config("retrieval", root, data=given)
    parts = [read_split(settings, part).annotations for part in ("train", "eval", "test")]
    assert [part.split for part in parts] == [train, chosen_on, tested_on]
    assert {part.dataset for part in parts} == {root.name}
    assert parts[2].source == f"manifest {root / tested_on}.jsonl" and parts[2].labelled


def test_missing_videos_are_counted_once_each_and_left_out(root: Path) -> None:
    lines = [{"video": "gone.mp4", "caption": "a", "start": start, "end": 9} for start in (0, 5)]
    with (root / "test.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in [*lines, {"video": "gone.mp4", "caption": "b"}]))
    split = read_split(config("caption", root, data={"test_manifest": "test.jsonl"}), "test")
    assert (len(split.present), len(split.missing), split.num_annotated) == (3, 3, 6)
    assert split.missing_videos == [{"video": str(root / "videos" / "gone.mp4"), "reason": "no such file"}] * 3


def test_questions_are_read_for_question_answering_and_a_video_of_many_is_one(root: Path) -> None:
    write_questions(root, [3, 1, 2])
    settings = config("vqa", root)
    (root / "videos" / "2.mp4").unlink()
    split = read_split(settings, "train")
    assert all(isinstance(record, QuestionRecord) for record in split.present)
    assert (len(split.present), split.num_annotated, len(split.missing_videos)) == (4, 3, 1)
    table = video_text(settings, split.present, training=False)
    assert table.captions == [
        "what colour is it?",
        "does it move?",
        "how many colours are there in all of the video?",
        "what colour is it?",
    ]
    assert table.caption_video == [0, 0, 0, 1]


def test_public_datasets_are_read_by_their_splits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def read(dataset: str, folder: Path, split: str, videos: Path) -> Annotations:
        asked.append((dataset, folder, split, videos))
        record = VideoTextRecord(str(root / "videos" / "0.mp4"), ("A (red) ball!",))
        return Annotations([record], dataset, f"honest {split}", "the authors' file")

    monkeypatch.setattr(public, "read", read)
    given = {"dataset": "didemo", "eval_split": "val", "test_split": "test", "videos": str(root / "videos")}
    settings = config("retrieval", root, data=given)
    splits = [read_split(settings, part) for part in ("train", "eval", "test")]
    assert asked == [("didemo", root, split, root / "videos") for split in ("train", "val", "test")]
    assert splits[1].annotations.split == "honest val" and splits[1].annotations.source == "the authors' file"
    assert [setting_of(settings, part) for part in ("train", "eval")] == ["data.train_split", "data.eval_split"]
    only_train = config("retrieval", root, data={"dataset": "didemo"})
    assert named_files(only_train, "test") == NamedFiles("train")


def test_a_list_restricts_its_own_split(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("0.mp4", "0.mov", "1.mp4", "2.mp4"):
        (tmp_path / "videos" / name).touch()
    for split in ("val", "test"):
        rows = [{"video": name, "description": f"{split} {name}"} for name in ("0.mp4", "0.mov", "1.mp4", "2.mp4")]
        (tmp_path / f"{split}_data.json").write_text(json.dumps(rows))
    (tmp_path / "test_list.txt").write_text("2.mp4\n0.mov\n")
    given = {"dataset": "didemo", "train_split": "val", "eval_split": "val", "test_split": "test"}
    settings = config("retrieval", tmp_path, data={**given, "test_list": "test_list.txt"})
    chosen_on, tested_on = (read_split(settings, part).annotations for part in ("eval", "test"))
    assert (len(chosen_on.records), chosen_on.video_list) == (4, None)
    assert [record.captions for record in tested_on.records] == [("test 0.mov",), ("test 2.mp4",)]
    assert (tested_on.video_list, tested_on.names) == ("test_list.txt", ("0.mov", "2.mp4"))
    assert str(named_files(settings, "test")) == "test of test_list.txt"


def test_captions_are_cleaned_unless_they_are_to_be_left(root: Path) -> None:
    records = [VideoTextRecord(str(root / "videos" / "0.mp4"), ("A (red) ball rolls!",))]
    cases = (
        ({"max_words": 2}, "a red"),
        ({}, "a red ball rolls"),
        ({"clean_up": "caption", "max_words": 3}, "a red ball"),
        ({"clean_captions": False}, "A (red) ball rolls!"),
        ({"clean_up": "none"}, "A (red) ball rolls!"),
        ({"clean_up": "no_punctuation"}, "a red ball rolls"),
    )
    for given, expected in cases:
        assert video_text(config("caption", root, data=given), records, training=False).captions == [expected]


def test_questions_are_cleaned_as_questions_unless_another_rule_is_named(root: Path) -> None:
    question = "Is it no.3, the e-bike?"
    cases = (({}, "is it no3, the e-bike?"), ({"clean_up": "no_punctuation"}, "is it no3 the e bike"))
    for given, expected in cases:
        assert clean_up(config("vqa", root, data=given))(question) == expected


def test_every_part_has_a_setting_of_its_own() -> None:
    manifests = config("retrieval", Path("/data"))
    public_data = config("retrieval", Path("/data"), data={"dataset": "msrvtt"})
    named = [setting_of(settings, part) for settings in (manifests, public_data) for part in PARTS]
    assert len(set(named)) == 6 and all(hasattr(DataConfig, name.removeprefix("data.")) for name in named)
