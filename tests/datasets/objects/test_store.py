"""The file of boxes: what goes in comes out, ended runs resume, and other files are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from datasets.objects.detections import ClipBoxes
from datasets.objects.store import ObjectSettings, ObjectStore, StoreWriter

SETTINGS = ObjectSettings(3, 2, 224, "crop", "uniform", "a test", {"dog": 4})


def boxes(seed: int) -> ClipBoxes:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 100, (3, 2, 2))
    found = np.concatenate([corners, corners + rng.uniform(1, 100, (3, 2, 2))], axis=-1).astype(np.float32)
    classes = rng.integers(0, 3, (3, 2))
    found[classes == 0] = -1
    return ClipBoxes(found, classes, rng.integers(0, 3, 4))


def same(first: ClipBoxes, second: ClipBoxes) -> bool:
    return (
        np.abs(first.boxes - second.boxes).max() < 0.01
        and np.array_equal(first.classes, second.classes)
        and np.array_equal(first.trajectory_ids, second.trajectory_ids)
    )


def test_an_ended_run_resumes_and_what_failed_is_tried_again(tmp_path: Path) -> None:
    path, names = tmp_path / "a.objects", ["x/one.mp4", "two.mp4", "größe"]
    writer = StoreWriter(path, names, SETTINGS)
    writer.put(0, boxes(0), 224)
    writer.fail(1)
    with pytest.raises(ValueError, match="it resumes"):
        ObjectStore(path)
    resumed = StoreWriter(path, names, SETTINGS)
    assert resumed.pending() == [1, 2]
    resumed.put(2, boxes(2), 224)
    resumed.fail(1)
    resumed.finish()

    store = ObjectStore(path)
    assert list(store.names()) == names and store.settings == SETTINGS
    assert same(store["x/one.mp4"], boxes(0)) and same(store["größe"], boxes(2))
    # A video is found by its file's name alone, where the file of boxes has no more. What failed is not there.
    assert "elsewhere/größe.mkv" in store and "one.mp4" not in store and "two.mp4" not in store
    with pytest.raises(KeyError, match=r"no boxes of two\.mp4"):
        store["two.mp4"]
    with safe_open(path, "np") as file:
        assert file.get_tensor("boxes").shape == (3, 3, 2, 4)


def test_a_run_with_other_settings_or_clips_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.objects"
    StoreWriter(path, ["one", "two"], SETTINGS)
    with pytest.raises(ValueError, match="another image_size: 224 then, 112 now"):
        StoreWriter(path, ["one", "two"], replace(SETTINGS, image_size=112))
    with pytest.raises(ValueError, match="begun for 2 clips"):
        StoreWriter(path, ["one", "three"], SETTINGS)
    with pytest.raises(ValueError, match="one: stands several times"):
        StoreWriter(tmp_path / "b.objects", ["one", "one"], SETTINGS)
    StoreWriter(path, ["one", "two"], SETTINGS).finish()
    with pytest.raises(ValueError, match="is there already"):
        StoreWriter(path, ["one", "two"], SETTINGS)


def test_boxes_of_other_frames_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.objects"
    StoreWriter(path, ["one"], SETTINGS).finish()
    store = ObjectStore(path)
    store.check(num_frames=3, image_size=224, fit="crop", sampling="uniform")
    with pytest.raises(
        ValueError, match=r"num_frames is 3 there and 12 here; sampling is uniform there and random here"
    ):
        store.check(num_frames=12, image_size=224, sampling="random")


@pytest.mark.parametrize("content", [b"", b"nothing", (10**9).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"{}"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.objects").write_bytes(content)
    with pytest.raises(ValueError, match="is no file of scripts.prepare_objects"):
        ObjectStore(tmp_path / "a.objects")
