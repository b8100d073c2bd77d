"""DiDeMo: paragraphs of the authors' descriptions, and those that the reference has joined already."""

from pathlib import Path

import pytest

from datasets.annotations import didemo
from datasets.records import VideoTextRecord
from tests.datasets.annotations.folders import error_of, touch, write_json, write_lines

MOMENTS = [
    {"video": "u_1.mov", "description": "The dog runs.", "times": [[0, 1]], "annotation_id": 3},
    {"video": "u_2.", "description": " A cat\n", "times": [[2, 2]], "annotation_id": 1},
    {"video": "u_1.mp4", "description": "it sits", "times": [[4, 5]], "annotation_id": 2},
    {"video": "u_1.mov", "description": "The DOG barks", "times": [[1, 1]], "annotation_id": 9},
]
FIVE = {
    "26292851@N04_4253489686_265c3c8051.m4v": "someone kicks the bug towards some rocks. a man in a red shirt "
    "stomps on a centipede. man in white shirt is seen close up of a millipede on the rocks first time foot swipes at "
    "wiggly thing",
    "48600096354@N01_6164677466_fb7bb3a83e.mov": "a man holds up a stuffed bear. man pretends that teddy bear is "
    "talking to him, A teddy bear is shown by the man.",
    "89686003@N00_5825835376_c3f4d87cd0.mov": "a person in a yellow costume jumps over something Man in short without "
    "costume is walking the man in the yellow costume jumps The person in the yellow suit is seen jumping over the "
    "obstacle.",
    "71508414@N08_6748306797_54b221b2b3.mov": "man points at building A man points at the roof. A man pointing to a "
    "building.",
    "33439178@N00_9022798576_af4fa83486.": "baby smiles while adult strokes her hair and tickles her chin woman fixes "
    "baby's hair a baby smiling while they have their head cleaned.",
}


def test_descriptions_are_joined_in_the_order_of_the_file(tmp_path: Path) -> None:
    write_json(tmp_path / "val_data.json", MOMENTS)
    videos = touch(tmp_path / "videos", "u_1.mp4", "u_2.avi")
    annotations = didemo.read(tmp_path, "val", videos)
    assert annotations.records == [
        VideoTextRecord(str(videos / "u_1.mp4"), ("The dog runs. The DOG barks",)),
        VideoTextRecord(str(videos / "u_2.avi"), ("A cat",)),
        VideoTextRecord(str(videos / "u_1.mp4"), ("it sits",)),
    ]
    assert (annotations.dataset, annotations.split, annotations.labelled) == ("didemo", "val", True)
    assert annotations.source == "the authors' own annotations (val_data.json)"


def test_merged_makes_one_of_names_that_differ_by_the_suffix(tmp_path: Path) -> None:
    write_json(tmp_path / "val_data.json", MOMENTS)
    write_lines(tmp_path / "val.jsonl", [{"clip_name": "other", "caption": "x"}])
    annotations = didemo.read(tmp_path, "val_merged", tmp_path)
    assert "; put train_data.json there" in error_of(lambda: didemo.read(tmp_path, "train_merged", tmp_path))
    assert annotations.split == "val_merged" and "val.jsonl" not in annotations.source
    assert annotations.records == [
        VideoTextRecord(str(tmp_path / "u_1.mov"), ("The dog runs. it sits The DOG barks",)),
        VideoTextRecord(str(tmp_path / "u_2."), ("A cat",)),
    ]


def test_the_references_file_comes_first_and_its_captions_stay_as_they_are(tmp_path: Path) -> None:
    write_json(tmp_path / "val_data.json", MOMENTS)
    rows = [{"clip_name": "u_9", "caption": " One. Two!\n"}, {"clip_name": "u_2", "caption": "b"}]
    write_lines(tmp_path / "val.jsonl", [*rows, {"clip_name": "u_9", "caption": "again"}])
    annotations = didemo.read(tmp_path, "val", tmp_path)
    assert annotations.records == [
        VideoTextRecord(str(tmp_path / "u_9.mp4"), (" One. Two!\n", "again")),
        VideoTextRecord(str(tmp_path / "u_2.mp4"), ("b",)),
    ]
    assert annotations.source.endswith("(val.jsonl); there but not read: val_data.json")


@pytest.mark.parametrize(
    ("file", "rows", "found"),
    [
        ("val_data.json", MOMENTS[0], ": found dict, not a list"),
        ("val_data.json", [*MOMENTS, {"video": "a.mp4"}], ": item 4: no key 'description'"),
        ("val_data.json", [{"description": "x"}], ": item 0: no key 'video'"),
        ("val_data.json", [{"video": 3, "description": "x"}], ": item 0: video is 3, not a text"),
        ("val_data.json", [{"video": "a.mp4", "description": ["x"]}], ": item 0: description is ['x']"),
        ("val.jsonl", [{"caption": "x"}], ":1: no key 'clip_name'"),
        ("val.jsonl", [{"clip_name": "a", "caption": "x"}, {"clip_name": "b", "caption": ""}], ":2: caption is ''"),
    ],
)
def test_bad_files(tmp_path: Path, file: str, rows: list[object], found: str) -> None:
    (write_json if file.endswith("json") else write_lines)(tmp_path / file, rows)
    assert error_of(lambda: didemo.read(tmp_path, "val", tmp_path)).startswith(f"{tmp_path / file}{found}")


@pytest.mark.parametrize(
    ("split", "descriptions", "paragraphs", "merged"), [("test", 4021, 1037, 1004), ("val", 4180, 1094, 1065)]
)
def test_real_counts(real_data: Path, split: str, descriptions: int, paragraphs: int, merged: int) -> None:
    root = real_data / "annotations/didemo"
    records = didemo.read(root, split, root / "videos").records
    assert len(records) == len({record.video for record in records}) == paragraphs
    joined = didemo.read(root, f"{split}_merged", root / "videos").records
    assert len(joined) == merged
    words = [sum(len(text.split()) for record in each for text in record.captions) for each in (records, joined)]
    assert words[0] == words[1] > 3 * descriptions


def test_five_real_paragraphs_word_by_word(real_data: Path) -> None:
    root = real_data / "annotations/didemo"
    records = didemo.read(root, "test", Path("/videos")).records
    assert {name: text for name, text in texts_by_name(records).items() if name in FIVE} == FIVE


def texts_by_name(records: list[VideoTextRecord]) -> dict[str, str]:
    assert all(len(record.captions) == 1 for record in records)
    return {record.video.removeprefix("/videos/"): record.captions[0] for record in records}
