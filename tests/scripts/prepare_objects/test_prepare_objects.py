"""The command on videos and on files of others: right boxes, or an error that says where."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datasets.objects.store import ObjectStore
from scripts.prepare_objects import __main__ as command, detector, files
from scripts.prepare_objects.ways import video_of
from tests.videos import write_video

LABELS = {"dog": 3, "cat": 5}
Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    def run(way: str, *options: object) -> int:
        words = [way, tmp_path / "out.objects", "--num-frames", 2, "--per-frame", 2, "--jobs", 0, *options]
        monkeypatch.setattr(sys, "argv", ["prepare_objects", *map(str, words)])
        return command.main()

    return run


def moving_square(path: Path) -> Path:
    """A white square of 16 pixels on black, 64 wide and 32 high, 8 pixels further to the right in each of 4 frames."""
    frames = np.zeros((4, 32, 64, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[8:24, 16 + 8 * number : 32 + 8 * number] = 255
    return write_video(path, frames)


class FindsBright(torch.nn.Module):
    """A detector that finds what is bright, of class 3, and with it a box of class 0, which is no object."""

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        found = []
        for image in images:
            bright = (image.mean(dim=0) > 0.5).nonzero()
            top, left = bright.min(dim=0).values.tolist()
            bottom, right = (bright.max(dim=0).values + 1).tolist()
            boxes = torch.tensor([[0.0, 0, 9, 9], [left, top, right, bottom]])
            found.append({"boxes": boxes, "labels": torch.tensor([0, 3]), "scores": torch.tensor([0.9, 0.8])})
        return found


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_boxes_are_of_the_sampled_frames_and_in_their_pixels(
    fit: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving_square(tmp_path / "videos" / "a.mp4")
    monkeypatch.setattr(detector, "load_detector", lambda *_: FindsBright())
    monkeypatch.setattr("scripts.prepare_objects.ways.load_detector", lambda *_: None)
    options = ["--videos", tmp_path / "videos", "--image-size", 16, "--fit", fit, "--pictures", 1]
    assert run("detect", *options) == 0
    found = ObjectStore(tmp_path / "out.objects")["a.mp4"]

    # Frames 1 and 3 of the four, at half the size. A crop begins at 16 of the 64 pixels.
    scale_x, left = (0.5, 8) if fit == "crop" else (0.25, 0)
    for frame, x in zip((0, 1), (24, 40), strict=True):
        expected = (x * scale_x - left, 4, min((x + 16) * scale_x - left, 16), 12)
        assert np.allclose(found.boxes[frame, 0], expected, atol=0.6)
    assert found.classes.tolist() == [[3, 0], [3, 0]] and found.trajectory_ids.tolist() == [3, 0, 0, 0]
    with Image.open(tmp_path / "out_0.png") as sheet:
        assert sheet.size == (64, 16)


def test_a_real_detector_of_random_weights_and_a_broken_video(run: Run, tmp_path: Path, capsys: Any) -> None:
    moving_square(tmp_path / "videos" / "a.mp4")
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"nothing")
    model = ["--model", "ssdlite320_mobilenet_v3_large", "--weights", "random", "--min-confidence", 0]
    options = ["--videos", tmp_path / "videos", "--image-size", 32, *model]
    assert run("detect", *options) == 1
    assert "failed: broken.mp4" in capsys.readouterr().err
    (line,) = (tmp_path / "out.objects.failures.jsonl").read_text().splitlines()
    assert json.loads(line)["clip"] == "broken.mp4"
    assert run("detect", *options, "--allow-failures") == 1
    assert "resuming: 1 of 2 clips are there" in capsys.readouterr().err
    store = ObjectStore(tmp_path / "out.objects")
    assert (store["a.mp4"].classes > 0).any() and "broken.mp4" not in store


def test_what_is_wrong_with_the_command_ends_it_at_once(run: Run, tmp_path: Path, capsys: Any) -> None:
    moving_square(tmp_path / "videos" / "a.mp4")
    (tmp_path / "odd.pth").write_bytes(b"nothing")
    videos = ["--videos", tmp_path / "videos"]
    for options, message in (
        (["--videos", tmp_path / "nowhere"], "no such folder"),
        ([*videos, "--model", "nonsense"], "nonsense"),
        ([*videos, "--weights", tmp_path / "odd.pth"], "no file of plain tensors"),
    ):
        weights = [] if "--weights" in options else ["--weights", "random"]
        given = [] if "--model" in options else ["--model", "ssdlite320_mobilenet_v3_large"]
        assert run("detect", *options, *weights, *given) == 2
        assert message in capsys.readouterr().err


def write_files(folder: Path, **contents: Any) -> list[object]:
    folder.mkdir(exist_ok=True)
    for name, frames in contents.items():
        (folder / f"{name}.json").write_text(json.dumps([{"objects": frame} for frame in frames]))
    (folder.parent / "labels.json").write_text(json.dumps({"label_to_idx": LABELS}))
    return ["--detections", folder, "--label-map", folder.parent / "labels.json"]


def box(name: str, *rect: float) -> dict[str, Any]:
    return {"class": name, "rect": list(rect), "conf": 0.5}


def test_files_with_many_boxes_none_and_one_in_the_corner(run: Run, tmp_path: Path) -> None:
    many = [box("dog", 3 * n, n, 3 * n + 9, n + 9) for n in range(40)]
    corner = [box("cat", 214, 204, 224.5, 224)]
    options = write_files(tmp_path / "json", video1=[many, []], video2=[corner, corner])
    assert run("vinvl", *options) == 0
    store = ObjectStore(tmp_path / "out.objects")
    assert store["video1.mp4"].classes.tolist() == [[3, 0], [0, 0]]
    assert np.allclose(store["video2"].boxes[:, 0], (214, 204, 224, 224), atol=0.01)
    assert store.settings.classes == LABELS


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([[], [], []], r"odd.json: has 3 frames, and clips have 2"),
        ([[box("unicorn", 30, 1, 40, 9)], []], r"odd.json: frame 0, object 0: class 'unicorn'"),
        (
            [[], [box("dog", 30, 1, 640, 90)]],
            r"odd.json: frame 1, object 0: rect .* does not lie in a frame of 224 x 224",
        ),
        ([[], [box("dog", 30, 40, 1, 9)]], r"odd.json: frame 1, object 0: rect .* is not in order xyxy"),
    ],
)
def test_a_file_that_does_not_fit_is_named(frames: Any, message: str, run: Run, tmp_path: Path, capsys: Any) -> None:
    options = write_files(tmp_path / "json", fine=[[box("dog", 30, 1, 40, 9)], []], odd=frames)
    assert run("vinvl", *options, "--box-order", "xyxy") == 1
    assert not (tmp_path / "out.objects").exists()
    error = capsys.readouterr().err
    assert re.search(message, error), error


def test_boxes_in_the_videos_own_pixels_are_scaled_into_the_crop(run: Run, tmp_path: Path, capsys: Any) -> None:
    moving_square(tmp_path / "videos" / "a.mp4")
    options = write_files(tmp_path / "json", a=[[box("dog", 24, 8, 40, 24)], []])
    assert run("vinvl", *options, "--coordinates", "video") == 2
    assert "needs --videos" in capsys.readouterr().err
    options += ["--coordinates", "video", "--videos", tmp_path / "videos", "--image-size", 64]
    assert run("vinvl", *options) == 0
    found = ObjectStore(tmp_path / "out.objects")["a"]
    # Twice as large, 128 x 64, of which the middle 64 x 64 begin at 32.
    assert np.allclose(found.boxes[0, 0], (16, 16, 48, 48), atol=0.01)


def test_caches(run: Run, tmp_path: Path, capsys: Any) -> None:
    boxes, classes = torch.full((2, 2, 4), -1.0), torch.zeros(2, 2, dtype=torch.int64)
    boxes[1, 0], classes[1, 0] = torch.tensor([1.0, 2, 30, 40]), 7
    entry = {"objects": boxes, "obj_cls": classes, "attr_sentence": "", "conf_set": {7: 0.5}}
    torch.save({"video1": entry}, tmp_path / "a.pth")
    torch.save({"video2": entry}, tmp_path / "b.pth")
    assert run("caches", "--files", tmp_path / "a.pth", tmp_path / "b.pth") == 0
    store = ObjectStore(tmp_path / "out.objects")
    assert len(store) == 2 and np.allclose(store["video2"].boxes[1, 0], (1, 2, 30, 40), atol=0.01)
    torch.save({"video1": {**entry, "conf_set": {}}}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"b\.pth: video1 has other boxes"):
        files.convert_caches([tmp_path / "a.pth", tmp_path / "b.pth"], 2, 2)


def test_didemos_files_are_of_the_videos_that_their_names_begin_with() -> None:
    assert video_of(Path("tsv/12090392@N02_13482799053_87ef417396.mov_[0]_[31].json")).endswith("87ef417396.mov")
    assert video_of(Path("tsv/1001_00.00.51.926-00.00.54.129.json")) == "1001_00.00.51.926-00.00.54.129"
