"""The benchmarks' videos, and that the bare calls and the reference's item read what ours reads."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import decode as decode_benchmark, videos
from benchmarks.measure import measure
from benchmarks.settings import Settings, sections
from datasets import decode
from models.parts.pixels import normalise_pixels

WHOLE = ("aggregation.reducer=none", "aggregation.frames_per_block=0", "aggregation.patches_per_block=0")
SMALL = ("video.num_frames=6", "video.image_size=32", *WHOLE)


def settings(data: str | None = None) -> Settings:
    return Settings(config=None, overrides=SMALL, device="cpu", threads=1, rounds=1, data=data)


VIDEO = sections(settings())[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short videos, and one that decord cannot open."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(videos, "FRAMES", 15)
        patched.setattr(videos, "MADE", {"0.mp4": "libx264", "1.mp4": "libx264", "av1.mkv": "libsvtav1"})
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        videos.make(folder)
        assert (os.sched_getscheduler(0), os.sched_getparam(0)) == before
    return folder


def test_made_videos_differ_and_move(root: Path) -> None:
    found = videos.paths(root)
    assert [Path(path).name for path in found] == ["0.mp4", "1.mp4"]
    first, second = (decode.read_video(path, 64, lambda length: np.arange(length)).int() for path in found)
    assert len(first) == len(second) == 15
    assert (first - second).abs().float().mean() > 5
    assert (first[1:] - first[:-1]).abs().float().mean((1, 2, 3)).min() > 1
    with pytest.raises(Exception, match="ERROR|cannot|Error"):
        videos.naive_clip(str(root / "videos/av1.mkv"), VIDEO, videos.chooser(VIDEO))


def test_bare_calls_read_the_same_frames(root: Path) -> None:
    choose = videos.chooser(VIDEO)
    for path in videos.paths(root):
        job = videos.job(path, 32, choose)
        assert job.indices.tolist() == [1, 3, 6, 8, 11, 13]
        frames = torch.from_dlpack(videos.raw_decord(job).to_dlpack())
        assert (frames.permute(0, 3, 1, 2).int() - decode.read_video(path, 32, choose)).abs().float().mean() < 2
    job = videos.job(str(root / "videos/av1.mkv"), 32, choose)
    frames = torch.from_numpy(np.stack([frame.to_ndarray() for frame in videos.raw_pyav(job)]))
    assert torch.equal(frames.permute(0, 3, 1, 2), decode.read_video(job.path, 32, choose))


def test_bare_pyav_repeats_no_frame(root: Path) -> None:
    job = videos.Job(str(root / "videos/av1.mkv"), 32, np.array([2, 2, 5]))
    assert len(videos.raw_pyav(job)) == 2


def test_the_references_item_is_ours_normalised(root: Path) -> None:
    choose = videos.chooser(VIDEO)
    for path in videos.paths(root):
        expected = normalise_pixels(
            decode.read_video(path, 32, choose), VIDEO.pixel_mean, VIDEO.pixel_std, torch.float32
        )
        found = videos.naive_clip(path, VIDEO, choose)
        assert found.dtype == torch.float32 and found.shape == (6, 3, 32, 32) and found.std() > 0.1
        # Another FFmpeg converts the colours.
        assert (found - expected).abs().mean() < 0.03


def test_a_folder_of_ones_own(root: Path, tmp_path: Path) -> None:
    assert videos.folder(settings(str(root))) == root
    with pytest.raises(ValueError, match="holds neither captions.jsonl nor manifest.jsonl"):
        videos.paths(tmp_path)
    (tmp_path / "videos").mkdir()
    rows = [
        {"video": "b.mp4", "caption": "x"}, {"video": "a.mp4", "caption": "x", "start": 1.0, "end": 2.0},
        {"video": "b.mp4", "caption": "y", "start": 3.0}, {"video": "c.png", "caption": "x"},
    ]  # fmt: skip
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert videos.paths(tmp_path) == [str(tmp_path / "videos" / name) for name in ("b.mp4", "a.mp4")]
    (tmp_path / "manifest.jsonl").write_text(json.dumps(rows[-1]) + "\n")
    with pytest.raises(ValueError, match="names no video"):
        videos.paths(tmp_path)


def test_made_folders_go(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = []
    monkeypatch.setattr(videos, "make", lambda folder: (folder / "something").touch())
    monkeypatch.setattr(videos.atexit, "register", lambda *call, **options: registered.append((call, options)))
    made = videos.folder(settings())
    assert os.listdir(made) == ["something"]
    ((remove, *arguments), options) = registered[0]
    remove(*arguments, **options)
    assert not made.exists()


@pytest.mark.usefixtures("in_this_process")
def test_cases(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own,) = decode_benchmark.cases(settings(str(root)))
    monkeypatch.setattr(videos, "folder", lambda settings: root)
    decord_case, pyav_case = decode_benchmark.cases(settings())
    assert decord_case == own and own.name == "decode, against decord, 6 frames"
    assert pyav_case.ours.arguments["paths"] == [str(root / "videos/av1.mkv")] and pyav_case.naive is None
    rows = [measure(case, settings()) for case in (decord_case, pyav_case)]
    assert all(row.ours_s > 0 and row.limit_s > 0 for row in rows)
    assert rows[0].naive_s > 0 and rows[1].naive_s is None
