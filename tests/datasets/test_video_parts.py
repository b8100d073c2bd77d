"""Parts of a long video, read side by side, give the frames of a single reader."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import datasets.video.parts as parts_module
from datasets.decode import DecodeError, frame_list, read_video
from datasets.video.files import source_of
from datasets.video.parts import parts_to_read, run_side_by_side
from tests.videos import grey_steps, write_video

KEY_EVERY = 12


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return write_video(path, grey_steps(240, step=1), options={"g": str(KEY_EVERY), "sc_threshold": "0"})


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "LEAST_FRAMES", 8)
    monkeypatch.setattr(parts_module, "LEAST_STARTS", 2)


def read(video: Path, step: int, threads: int) -> torch.Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return read_video(str(video), 32, lambda length: np.repeat(np.arange(0, length, step), 2))
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("step", [1, 7, 13])
def test_the_frames_are_those_of_one_reader(video: Path, step: int) -> None:
    assert len(parts_to_read(frame_list(source_of(str(video))), np.arange(0, 240, step), 3)) > 1
    assert torch.equal(read(video, step, threads=3), read(video, step, threads=1))


def test_short_videos_and_workers_read_alone(video: Path) -> None:
    frames = frame_list(source_of(str(video)))
    assert len(parts_to_read(frames, np.arange(240), 16)) == 1  # too short
    assert len(parts_to_read(frames.counted("stamps repeat"), np.tile(np.arange(240), 9), 16)) == 1


@pytest.mark.usefixtures("small_parts")
def test_parts_cover_what_is_wanted_in_order(video: Path) -> None:
    frames = frame_list(source_of(str(video)))
    wanted = np.arange(3, 230, 2)
    for threads in (1, 2, 3, 5):
        parts = parts_to_read(frames, wanted, threads)
        assert len(parts) == threads and np.array_equal(np.concatenate(parts), wanted)


@pytest.mark.usefixtures("small_parts")
def test_a_file_that_breaks_in_the_middle_is_an_error(video: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mp4"
    content = bytearray(video.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 600] = bytes(600)
    damaged.write_bytes(content)
    results = []
    for threads in (1, 3):
        try:
            results.append(read(damaged, 1, threads))
        except DecodeError as error:
            results.append(error.reason)
    assert type(results[0]) is type(results[1])
    assert results[0] == results[1] if isinstance(results[0], str) else torch.equal(*results)


@pytest.mark.parametrize("failing_first", [True, False])
def test_an_error_ends_the_other_parts(failing_first: bool) -> None:
    begun = threading.Event()
    read: list[int] = []

    def long() -> Iterator[None]:
        for number in range(3000):
            read.append(number)
            begun.set()
            time.sleep(0.001)
            yield

    def failing() -> Iterator[None]:
        begun.wait()
        yield
        raise ValueError("broken")

    parts = [failing(), long()] if failing_first else [long(), failing()]
    with pytest.raises(ValueError, match="broken"):
        run_side_by_side(parts)
    assert len(read) < 3000
