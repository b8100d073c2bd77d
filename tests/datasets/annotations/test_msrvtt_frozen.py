"""MSR-VTT as Frozen in Time packed it, which TVTSv2 reads: against the real lists, with captions made up."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from configs.load import load
from configs.schema import RetrievalConfig
from datasets.annotations import msrvtt, msrvtt_frozen
from datasets.records import VideoTextRecord
from tasks.annotations import read_annotations
from tests.datasets.annotations.folders import error_of, write_json

ROWS = [
    {"image_id": name, "caption": f"{word} of {name}", "id": number}
    for number, (word, name) in enumerate(
        [("first", "video2"), ("first", "video0"), ("second", "video2"), ("first", "video1"), ("second", "video0")]
    )
]


def write(root: Path, numbers: Any, rows: list[dict[str, Any]] = ROWS, places: int = 0) -> Path:
    captions, lists = (root / folder for folder in msrvtt_frozen.FOLDERS[places])
    for folder in (captions, lists):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(captions / "MSR_VTT.json", {"info": {}, "annotations": rows})
    (lists / "train_list_jsfusion.txt").write_text("video1\nvideo0")
    (lists / "val_list_jsfusion.txt").write_text("video2")
    (lists / "jsfusion_val_caption_idx.pkl").write_bytes(pickle.dumps(numbers))
    return root


def record(root: Path, name: str, *words: str) -> VideoTextRecord:
    return VideoTextRecord(str(root / f"{name}.mp4"), tuple(f"{word} of {name}" for word in words))


@pytest.mark.parametrize("places", range(len(msrvtt_frozen.FOLDERS)))
@pytest.mark.parametrize("split", ["test", "val", "test_1k"])
def test_a_tested_video_has_the_caption_whose_number_is_listed(tmp_path: Path, split: str, places: int) -> None:
    root = write(tmp_path, {"video2": 1, "video9": 0}, places=places)
    annotations = msrvtt.read(root, split, tmp_path)
    assert annotations.records == [record(tmp_path, "video2", "second")]
    assert annotations.split == "test_1k" and "MSR_VTT.json" in annotations.source


def test_training_takes_all_captions_in_the_order_of_the_list(tmp_path: Path) -> None:
    root = write(tmp_path, {"video2": 0})
    expected = [record(tmp_path, "video1", "first"), record(tmp_path, "video0", "first", "second")]
    for split in ("train", "train_9k"):
        assert msrvtt.read(root, split, tmp_path).records == expected


def test_the_list_with_sentences_comes_first(tmp_path: Path) -> None:
    root = write(tmp_path, {"video2": 0})
    (root / "MSRVTT_JSFUSION_test.csv").write_text("key,vid_key,video_id,sentence\nret0,msr2,video2,its own\n")
    annotations = msrvtt.read(root, "test_1k", tmp_path)
    assert annotations.records[0].captions == ("its own",)
    assert "there but not read: MSR_VTT.json, val_list_jsfusion.txt" in annotations.source


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ({"video2": 2}, "'video2' has the number 2, and its 2 captions count from 0"),
        ({"video2": True}, "'video2' has the number True"),
        ({}, "'video2' has the number None"),
        ([1], "found list, not a number for each video"),
    ],
)
def test_bad_numbers_of_captions(tmp_path: Path, numbers: Any, found: str) -> None:
    text = error_of(lambda: msrvtt.read(write(tmp_path, numbers), "test_1k", tmp_path))
    assert text.startswith(f"{tmp_path / 'jsfusion_val_caption_idx.pkl'}: {found}")


def test_bad_lists_and_captions(tmp_path: Path) -> None:
    write(tmp_path, {"video2": 0}, rows=[{"image_id": "video1"}])
    assert "annotations: item 0: no key 'caption'" in error_of(lambda: msrvtt.read(tmp_path, "train", tmp_path))
    write(tmp_path, {"video2": 0})
    (tmp_path / "train_list_jsfusion.txt").write_text("video1\nvideo7\n")
    assert "train_list_jsfusion.txt:2: 'video7' is not in " in error_of(
        lambda: msrvtt.read(tmp_path, "train", tmp_path)
    )
    (tmp_path / "train_list_jsfusion.txt").write_text("video1\nvideo1\n")
    assert "train_list_jsfusion.txt:2: 'video1' is listed before" in error_of(
        lambda: msrvtt.read(tmp_path, "train", tmp_path)
    )


def test_the_real_lists_through_the_configuration_of_retrieval(real_data: Path, tmp_path: Path) -> None:
    """1000 and 9000 videos; the numbers choose the same captions as the published list of sentences."""
    folder = real_data / "annotations/msrvtt"
    published = msrvtt.read(folder, "test_1k", tmp_path).records
    rows, numbers = [], {}
    for place, row in enumerate(published):
        name = Path(row.video).stem
        numbers[name] = place % 3
        rows += [{"image_id": name, "caption": f"not {place}"} for _ in range(place % 3)]
        rows.append({"image_id": name, "caption": row.captions[0]})
    rows += [{"image_id": f"video{number}", "caption": "trained on"} for number in range(10_000)]
    write_json(tmp_path / "MSR_VTT.json", {"annotations": rows})
    (tmp_path / "jsfusion_val_caption_idx.pkl").write_bytes(pickle.dumps(numbers))
    for name in ("train_list_jsfusion.txt", "val_list_jsfusion.txt"):
        (tmp_path / name).symlink_to(folder / name)

    settings = [f"data.root={tmp_path}", f"data.videos={tmp_path}"]
    config = load(RetrievalConfig, Path("configs/tvts/retrieval/msrvtt_b16.yaml"), settings)
    found = read_annotations(config, "test").records
    assert {(row.video, row.captions) for row in found} == {(row.video, row.captions) for row in published}
    assert len(found) == 1000 and len(msrvtt.read(tmp_path, "train_9k", tmp_path).records) == 9000
