"""ActivityNet Captions: paragraphs in two formats, told apart by their content, and splits by their honest names."""

import json
from pathlib import Path

import pytest

from datasets.annotations import activitynet_captions
from datasets.annotations.layout import RELEASE as RELEASE_NAME
from datasets.records import VideoTextRecord
from tests.datasets.annotations.folders import error_of, touch, write_json

AUTHORS = {
    "v_bb": {
        "duration": 82.7,
        "timestamps": [[0.8, 19.8], [17.4, 60.8]],
        "sentences": ["A man sits.", " He then\nruns."],
    },
    "v_aa": {"duration": 10, "timestamps": [[0, 9]], "sentences": [" Two dogs "]},
}
RELEASE = [{"video": "v_bb.mp4", "caption": ["A man sits.", " He runs."]}, {"video": "v_aa.mp4", "caption": ["x"]}]


def test_the_authors_files(tmp_path: Path) -> None:
    for name in ("train", "val_1", "val_2"):
        write_json(tmp_path / f"{name}.json", AUTHORS)
    videos = touch(tmp_path / "videos", "v_bb.webm")
    expected = [
        VideoTextRecord(str(videos / "v_bb.webm"), ("A man sits. He then\nruns.",)),
        VideoTextRecord(str(videos / "v_aa.mp4"), ("Two dogs",)),
    ]
    for split, honest in (
        ("train", "train"),
        ("val", "val_1"),
        ("test", "val_1"),
        ("val_1", "val_1"),
        ("val_2", "val_2"),
    ):
        annotations = activitynet_captions.read(tmp_path, split, videos)
        assert annotations.records == expected
        assert (annotations.split, annotations.source) == (honest, f"the authors' own annotations ({honest}.json)")


def test_the_references_files(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write_json(tmp_path / f"{name}.json", [*RELEASE, {"video": "v_bb.mp4", "caption": ["again"]}])
    videos = touch(tmp_path / "videos", "v_bb.mkv")
    expected = [
        VideoTextRecord(str(videos / "v_bb.mkv"), ("A man sits. He runs.", "again")),
        VideoTextRecord(str(videos / "v_aa.mp4"), ("x",)),
    ]
    for split, honest, name in (("train", "train", "train"), ("test", "val_1", "val"), ("val_1", "val_1", "val")):
        annotations = activitynet_captions.read(tmp_path, split, videos)
        assert annotations.records == expected
        assert (annotations.split, annotations.dataset) == (honest, "activitynet_captions")
        assert annotations.source == f"the reference's repackaged annotations ({name}.json)"


def test_of_two_validation_files_the_references_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "val.json", RELEASE)
    write_json(tmp_path / "val_1.json", AUTHORS)
    annotations = activitynet_captions.read(tmp_path, "val", tmp_path)
    assert annotations.records[0].captions == ("A man sits. He runs.",)
    assert annotations.source.endswith("(val.json); there but not read: val_1.json")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({}, ": found an empty dict"),
        ([], ": found an empty list"),
        ("text", ": found str, not a list"),
        ({"v_a": ["x"]}, ": 'v_a': found list, not an object"),
        ({"v_a": {"timestamps": []}}, ": 'v_a': no key 'sentences'"),
        ({"v_a": {"sentences": "x"}}, ": 'v_a': sentences is 'x', not a list"),
        ({"v_a": {"sentences": ["x", None]}}, ": 'v_a': sentences is ['x', None], not a list"),
        ({"v_a": {"sentences": [" "]}}, ": 'v_a': sentences has no words"),
        ([RELEASE[0], {"video": "a.mp4"}], ": item 1: no key 'caption'"),
        ([RELEASE[0], {"caption": ["x"]}], ": item 1: no key 'video'"),
        ([RELEASE[0], {"video": "a.mp4", "caption": "x"}], ": item 1: caption is 'x', not a list"),
    ],
)
def test_bad_files(tmp_path: Path, content: object, found: str) -> None:
    path = write_json(tmp_path / "train.json", content)
    text = error_of(lambda: activitynet_captions.read(tmp_path, "train", tmp_path))
    assert text.startswith(f"{path}{found}")


def test_a_video_that_stands_twice(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text('{"v_a": {"sentences": ["x"]}, "v_b": {"sentences": ["x"]}, "v_a": {"sentences": ["y"]}}')
    text = error_of(lambda: activitynet_captions.read(tmp_path, "train", tmp_path))
    assert text.startswith(f"{path}: key 'v_a' stands twice")


@pytest.mark.parametrize(("split", "videos", "sentences"), [("val_1", 4917, 17505), ("val_2", 4885, 17031)])
def test_real_counts(real_data: Path, split: str, videos: int, sentences: int) -> None:
    root = real_data / "annotations/activitynet_captions"
    content = json.loads((root / f"{split}.json").read_text())
    assert sum(len(entry["sentences"]) for entry in content.values()) == sentences
    records = activitynet_captions.read(root, split, Path("/videos")).records
    assert len(records) == len({record.video for record in records}) == videos
    for record, (name, entry) in zip(records, content.items(), strict=True):
        (paragraph,) = record.captions
        assert record.video == f"/videos/{name}.mp4" and paragraph == paragraph.strip()
        assert paragraph.split() == " ".join(entry["sentences"]).split()


def test_real_files_of_others_are_read_as_the_release(real_data: Path, tmp_path: Path) -> None:
    """The list that several codebases retrieve from holds the authors' sentences, with `.mp4` after each name."""
    root = real_data / "annotations/activitynet_captions"
    (tmp_path / "val.json").symlink_to(root / "anet_ret_val_1.json")
    (tmp_path / "train.json").symlink_to(root / "train_first500.json")
    listed = activitynet_captions.read(tmp_path, "val", Path("/videos"))
    assert listed.source.startswith(RELEASE_NAME) and listed.names[0].endswith(".mp4")
    assert listed.records == activitynet_captions.read(root, "val", Path("/videos")).records
    assert len(activitynet_captions.read(tmp_path, "train", Path("/videos")).records) == 500
