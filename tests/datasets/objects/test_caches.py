"""The reference's caches: read as they are, and never run."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.objects.caches import read_cache


def entry(as_tensors: bool) -> dict[str, Any]:
    boxes, classes = np.full((3, 2, 4), -1.0), np.zeros((3, 2), np.int64)
    boxes[0, 0], classes[0, 0] = (1, 2, 30, 40), 7
    boxes[2, 1], classes[2, 1] = (5, 6, 70, 80), 9
    made = (torch.from_numpy(boxes), torch.from_numpy(classes)) if as_tensors else (boxes, classes)
    return {"objects": made[0], "obj_cls": made[1], "attr_sentence": "red dog", "conf_set": {9: 0.5, 7: 1.5}}


@pytest.mark.parametrize("as_tensors", [True, False])
def test_a_cache_of_tensors_or_arrays(as_tensors: bool, tmp_path: Path) -> None:
    torch.save({"video7": entry(as_tensors)}, tmp_path / "object_attr_2.pth")
    found = read_cache(tmp_path / "object_attr_2.pth", num_frames=3, per_frame=2)["video7"]
    assert found.boxes[2, 1].tolist() == [5, 6, 70, 80] and found.classes.tolist() == [[7, 0], [0, 0], [0, 9]]
    assert found.trajectory_ids.tolist() == [9, 7, 0, 0]


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("harm",)


def test_code_in_a_cache_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"video7": Harmful()}, "object_attr.pth")
    with pytest.raises(ValueError, match=r"object_attr\.pth: .*nothing of it was run"):
        read_cache(Path("object_attr.pth"), num_frames=3, per_frame=2)
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objects": torch.zeros(4, 2, 4)}, r"video7: boxes of shape \(4, 2, 4\) .*--num-frames"),
        ({"obj_cls": torch.zeros(3, 2)}, "disagree on which are padding"),
        ({"obj_cls": "dog"}, "obj_cls: is no array"),
        ({"conf_set": [1]}, "conf_set is no dict"),
    ],
)
def test_other_forms_are_refused_by_file_and_entry(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save({"video7": {**entry(True), **change}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=rf"a\.pth: .*{message}"):
        read_cache(tmp_path / "a.pth", num_frames=3, per_frame=2)
    torch.save({"video7": {"objects": 1}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds objects; objects, obj_cls and conf_set are needed"):
        read_cache(tmp_path / "a.pth", num_frames=3, per_frame=2)
