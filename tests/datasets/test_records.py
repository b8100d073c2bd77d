"""Missing files and packed texts."""

import pickle
from pathlib import Path

import pytest

from datasets.records import PackedTexts, VideoTextRecord, is_image, split_missing


def test_split_missing_keeps_order(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").touch()
    records = [VideoTextRecord(str(tmp_path / name), (name,)) for name in ("a.mp4", "b.mp4", "c.mp4")]
    records.append(VideoTextRecord(str(tmp_path / "b.mp4"), ("again",), 1.0, 2.0))
    present, missing = split_missing(records, tmp_path)
    assert present == [records[1], records[3]] and missing == [records[0], records[2]]


def test_all_missing_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"none of the 1 videos is in {tmp_path}.*a.mp4.*data.videos") as error:
        split_missing([VideoTextRecord(str(tmp_path / "a.mp4"), ("x",))], tmp_path)
    assert "\n" not in str(error.value)


def test_packed_texts_are_a_list_of_strings() -> None:
    texts = ["", "a dog", "été", "", "\ud800", "last"]
    packed = PackedTexts(texts)
    assert [packed[position] for position in range(len(packed))] == texts
    assert PackedTexts([]).__len__() == 0


def test_packed_texts_are_small() -> None:
    texts = [f"/videos/{number:08}.mp4" for number in range(1000)]
    # 20 bytes of text and 8 of position a string.
    assert len(pickle.dumps(PackedTexts(texts))) < 1000 * 28 + 1000


def test_images_go_by_suffix() -> None:
    assert is_image("a/b.JPG") and is_image("c.png")
    assert not is_image("d.mp4") and not is_image("jpg/e")
