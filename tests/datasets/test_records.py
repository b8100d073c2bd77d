"""Missing files."""

from pathlib import Path

import pytest

from datasets.records import QuestionRecord, VideoTextRecord, is_image, split_missing


def test_split_missing_keeps_order(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").touch()
    records = [VideoTextRecord(str(tmp_path / name), (name,)) for name in ("a.mp4", "b.mp4", "c.mp4")]
    records.append(VideoTextRecord(str(tmp_path / "b.mp4"), ("again",), 1.0, 2.0))
    present, missing = split_missing(records, tmp_path)
    assert present == [records[1], records[3]] and missing == [records[0], records[2]]


def test_questions_are_split_as_captions_are(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").touch()
    records = [
        QuestionRecord(str(tmp_path / name), "who", ("dog",), (1.0,), str(number))
        for number, name in enumerate(("b.mp4", "a.mp4", "b.mp4"))
    ]
    assert split_missing(records, tmp_path) == ([records[0], records[2]], [records[1]])


def test_all_missing_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"none of the 1 videos is in {tmp_path}.*a.mp4.*data.videos") as error:
        split_missing([VideoTextRecord(str(tmp_path / "a.mp4"), ("x",))], tmp_path)
    assert "\n" not in str(error.value)


def test_images_go_by_suffix() -> None:
    assert is_image("a/b.JPG") and is_image("c.png")
    assert not is_image("d.mp4") and not is_image("jpg/e")
