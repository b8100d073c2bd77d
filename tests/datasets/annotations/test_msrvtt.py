"""MSR-VTT: the authors' captions under three splits, and the reference's files."""

import json
from pathlib import Path
from typing import Any

import pytest

from datasets.annotations import msrvtt
from datasets.annotations.files import GET_IT_AGAIN
from datasets.records import VideoTextRecord
from tests.datasets.annotations.folders import error_of, write_json, write_lines

SPLIT_OF = {"video0": "train", "video1": "validate", "video2": "test", "video3": "train"}
DATA: dict[str, Any] = {
    "info": {},
    "videos": [
        {"video_id": name, "split": split, "id": number} for number, (name, split) in enumerate(SPLIT_OF.items())
    ],
    "sentences": [
        {"video_id": f"video{number}", "caption": f"{word} of {number}", "sen_id": number}
        for word in ("first", "second")
        for number in (3, 0, 1, 2)
    ],
}


def write_authors(root: Path, data: object = DATA) -> Path:
    write_json(root / "MSRVTT_data.json", data)
    (root / "MSRVTT_train.9k.csv").write_text("video_id\nvideo3\nvideo0\nvideo1\n")
    (root / "MSRVTT_train.7k.csv").write_text("video_id\nvideo0\n")
    test = "key,vid_key,video_id,sentence\nret0,msr2,video2,the one that counts\n"
    (root / "MSRVTT_JSFUSION_test.csv").write_text(test)
    return root


def record(number: int, root: Path) -> VideoTextRecord:
    return VideoTextRecord(str(root / f"video{number}.mp4"), (f"first of {number}", f"second of {number}"))


@pytest.mark.parametrize(
    ("split", "honest", "numbers"),
    [
        ("train", "train_9k", (3, 0, 1)),
        ("train_9k", "train_9k", (3, 0, 1)),
        ("train_7k", "train_7k", (0,)),
        ("full_train", "full_train", (0, 3)),
        ("full_val", "full_val", (1,)),
        ("full_test", "full_test", (2,)),
    ],
)
def test_the_authors_file_under_each_split(tmp_path: Path, split: str, honest: str, numbers: tuple[int, ...]) -> None:
    annotations = msrvtt.read(write_authors(tmp_path), split, tmp_path)
    assert annotations.records == [record(number, tmp_path) for number in numbers]
    assert (annotations.dataset, annotations.split) == ("msrvtt", honest)
    assert "MSRVTT_data.json" in annotations.source


def test_without_the_long_list_training_is_on_the_short_one(tmp_path: Path) -> None:
    (write_authors(tmp_path) / "MSRVTT_train.9k.csv").unlink()
    annotations = msrvtt.read(tmp_path, "train", tmp_path)
    assert (annotations.split, annotations.records) == ("train_7k", [record(0, tmp_path)])


@pytest.mark.parametrize("split", ["val", "test", "test_1k"])
def test_a_video_of_the_1k_split_has_the_one_caption_of_its_list(tmp_path: Path, split: str) -> None:
    (write_authors(tmp_path) / "MSRVTT_data.json").unlink()
    annotations = msrvtt.read(tmp_path, split, tmp_path)
    assert annotations.records == [VideoTextRecord(str(tmp_path / "video2.mp4"), ("the one that counts",))]
    assert annotations.split == "test_1k"


def test_the_references_files_come_first(tmp_path: Path) -> None:
    rows = [("video7", "b"), ("video5", "a "), ("video7", "c")]
    for split in ("train", "val", "test"):
        write_lines(write_authors(tmp_path) / f"{split}.jsonl", [{"clip_name": n, "caption": c} for n, c in rows])
        annotations = msrvtt.read(tmp_path, split, tmp_path)
        assert annotations.records == [
            VideoTextRecord(str(tmp_path / "video7.mp4"), ("b", "c")),
            VideoTextRecord(str(tmp_path / "video5.mp4"), ("a ",)),
        ]
        assert annotations.split == split and "; there but not read: MSRVTT_" in annotations.source
    assert msrvtt.read(tmp_path, "train_7k", tmp_path).records == [record(0, tmp_path)]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ([DATA], ": not an object with videos and sentences"),
        ({"videos": DATA["videos"]}, ": not an object with videos and sentences"),
        (DATA | {"videos": {}}, ": videos: found an empty dict, not a list"),
        (DATA | {"sentences": []}, ": sentences: found an empty list"),
        (DATA | {"videos": [*DATA["videos"], DATA["videos"][0]]}, ": videos: item 4: video_id 'video0' stands at "),
        (DATA | {"videos": [{"video_id": 3}]}, ": videos: item 0: video_id is 3, not a text"),
        (DATA | {"videos": DATA["videos"][:3]}, ": sentences: item 0: video_id 'video3' is not among"),
        (DATA | {"sentences": [{"video_id": "video0"}]}, ": sentences: item 0: no key 'caption'"),
        (DATA | {"sentences": DATA["sentences"][1:4]}, ": videos: item 3: 'video3' has no sentence"),
    ],
)
def test_bad_captions(tmp_path: Path, data: object, found: str) -> None:
    text = error_of(lambda: msrvtt.read(write_authors(tmp_path, data), "train", tmp_path))
    assert text.startswith(f"{tmp_path / 'MSRVTT_data.json'}{found}") and text.endswith(GET_IT_AGAIN)


def test_no_video_of_a_split(tmp_path: Path) -> None:
    videos = [video | {"split": "train"} for video in DATA["videos"]]
    text = error_of(lambda: msrvtt.read(write_authors(tmp_path, DATA | {"videos": videos}), "full_val", tmp_path))
    assert text.startswith(f"{tmp_path / 'MSRVTT_data.json'}: no video of split 'validate'")


@pytest.mark.parametrize(
    ("file", "content", "split", "found"),
    [
        ("MSRVTT_train.9k.csv", "video_id\nvideo0\nvideo9\n", "train", ":3: 'video9' is not in "),
        ("MSRVTT_train.9k.csv", "video_id\nvideo0\nvideo0\n", "train", ":3: video_id 'video0' stands at "),
        ("MSRVTT_train.9k.csv", "video\nvideo0\n", "train", ":1: no columns 'video_id'"),
        ("MSRVTT_JSFUSION_test.csv", "video_id,sentence\nvideo2,\n", "test", ":2: sentence is '', not a text"),
        ("MSRVTT_JSFUSION_test.csv", "video_id,sentence\nv,a\nv,b\n", "test", ":3: video_id 'v' stands at "),
        ("train.jsonl", '{"clip_name": "video0"}\n', "train", ":1: no key 'caption'"),
        ("train.jsonl", '{"clip_name": "video0", "caption": ["x"]}\n', "train", ":1: caption is ['x'], not a text"),
    ],
)
def test_bad_lists(tmp_path: Path, file: str, content: str, split: str, found: str) -> None:
    (write_authors(tmp_path) / file).write_text(content)
    assert error_of(lambda: msrvtt.read(tmp_path, split, tmp_path)).startswith(f"{tmp_path / file}{found}")


def test_the_real_list_of_the_1k_split(real_data: Path) -> None:
    root = real_data / "annotations/msrvtt"
    annotations = msrvtt.read(root, "test", Path("/videos"))
    others = json.loads((root / "msrvtt_ret_test1k.json").read_text())
    found = [(Path(record.video).name, *record.captions) for record in annotations.records]
    assert found == [(row["video"], row["caption"]) for row in others] and len(set(found)) == 1000
    assert annotations.split == "test_1k"


@pytest.mark.parametrize(("split", "videos"), [("train_9k", 9000), ("train_7k", 7010)])
def test_the_real_lists_choose_the_videos_to_train_on(real_data: Path, tmp_path: Path, split: str, videos: int) -> None:
    """The captions, which are not to be had, are made up; the lists are real."""
    for name in msrvtt.LISTS.values():
        (tmp_path / name).symlink_to(real_data / "annotations/msrvtt" / name)
    names = [f"video{number}" for number in range(10_000)]
    rows = [{"video_id": name, "split": "train"} for name in names]
    sentences = [{"video_id": name, "caption": f"about {name}"} for name in names]
    write_json(tmp_path / "MSRVTT_data.json", {"videos": rows, "sentences": sentences})
    records = msrvtt.read(tmp_path, split, Path("/videos")).records
    tested = {record.video for record in msrvtt.read(tmp_path, "test", Path("/videos")).records}
    assert len(records) == len({record.video for record in records} - tested) == videos
    assert all(record.captions == (f"about {Path(record.video).stem}",) for record in records)
