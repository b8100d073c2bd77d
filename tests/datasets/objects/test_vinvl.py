"""VinVL's files: both orders of a box told apart, and errors that name file and entry."""

import json
from pathlib import Path
from typing import Any

import pytest

from datasets.objects.detections import Detection
from datasets.objects.vinvl import box_orders, detections, find_order, read_file, read_label_map

LABELS = {"dog": 3, "cat": 5}


def write(path: Path, frames: Any) -> Path:
    path.write_text(json.dumps(frames))
    return path


def found(name: str, rect: Any, conf: Any = 0.5) -> dict[str, Any]:
    return {"class": name, "rect": rect, "conf": conf}


def test_both_orders_give_the_same_boxes(tmp_path: Path) -> None:
    code = write(tmp_path / "code.json", [{"objects": [found("dog", [50, 10, 60, 30])]}, {"objects": []}])
    readme = write(tmp_path / "readme.json", [{"objects": [found("dog", [50, 60, 10, 30])]}, {"objects": []}])
    assert find_order([code]) == "xyxy" and find_order([readme]) == "xxyy"
    assert detections(read_file(code), LABELS, "xyxy") == [[Detection(3, (50, 10, 60, 30), 0.5)], []]
    assert detections(read_file(readme), LABELS, "xxyy") == [[Detection(3, (50, 10, 60, 30), 0.5)], []]


def test_an_order_is_known_once_one_file_shows_it(tmp_path: Path) -> None:
    both = write(tmp_path / "a.json", [{"objects": [found("dog", [1, 5, 10, 20])]}])
    code = write(tmp_path / "b.json", [{"objects": [found("dog", [10, 5, 30, 60])]}])
    assert box_orders(read_file(both)) == {"xyxy", "xxyy"}
    assert find_order([both, code]) == "xyxy"
    with pytest.raises(ValueError, match="--box-order xyxy or xxyy"):
        find_order([both])


def test_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    code = write(tmp_path / "code.json", [{"objects": [found("dog", [10, 5, 30, 60])]}])
    readme = write(tmp_path / "readme.json", [{"objects": [found("dog", [50, 60, 10, 30])]}])
    with pytest.raises(ValueError, match=r"readme\.json: .*code\.json needs xyxy"):
        find_order([code, readme])
    neither = write(tmp_path / "neither.json", [{"objects": [found("dog", [50, 40, 30, 20])]}])
    with pytest.raises(ValueError, match=r"neither\.json: .*rises in neither"):
        find_order([neither])
    with pytest.raises(ValueError, match=r"readme\.json: frame 0, object 0: rect .* is not in order xyxy"):
        detections(read_file(readme), LABELS, "xyxy")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ({"objects": []}, r"is not a list over frames, but an object"),
        ([{"objects": []}, {"boxes": []}], r"frame 1: has no list"),
        ([{"objects": [3]}], r"frame 0, object 0: is a number"),
        ([{"objects": [found("dog", [1, 2, 3])]}], r"frame 0, object 0: \"rect\" is \[1, 2, 3\]"),
        ([{"objects": [found("dog", [1, 2, 3, float("nan")])]}], r"\"rect\""),
        ([{"objects": [found("dog", [1, 2, 3, 4], "high")]}], r"\"conf\" is 'high'"),
        ([{"objects": [found("dog", [1, 2, 3, 4], None)]}], r"\"conf\" is None"),
        ([{"objects": [{"rect": [1, 2, 3, 4], "conf": 1}]}], r"\"class\" is None"),
    ],
)
def test_other_forms_are_refused_by_file_and_entry(frames: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"odd\.json: " + (message if message.startswith("is not") else f".*{message}")
    ):
        read_file(write(tmp_path / "odd.json", frames))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('[{"objects": [')
    with pytest.raises(ValueError, match=r"cut\.json: cannot be read as JSON"):
        read_file(tmp_path / "cut.json")


def test_unknown_classes_are_refused_or_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [{"objects": [found("unicorn", [1, 5, 9, 20]), found("cat", [1, 5, 9, 20])]}])
    with pytest.raises(ValueError, match=r"a\.json: frame 0, object 0: class 'unicorn' .*--skip-unknown-classes"):
        detections(read_file(path), LABELS, "xyxy")
    assert detections(read_file(path), LABELS, "xyxy", skip_unknown=True) == [[Detection(5, (1, 5, 9, 20), 0.5)]]


def test_label_maps(tmp_path: Path) -> None:
    assert read_label_map(write(tmp_path / "own.json", LABELS)) == LABELS
    assert read_label_map(write(tmp_path / "vinvl.json", {"label_to_idx": LABELS, "object_count": {}})) == LABELS
    with pytest.raises(ValueError, match=r"bad\.json: class 'dog' has number 0"):
        read_label_map(write(tmp_path / "bad.json", {"dog": 0}))
    with pytest.raises(ValueError, match=r"list\.json: holds neither"):
        read_label_map(write(tmp_path / "list.json", [1]))
