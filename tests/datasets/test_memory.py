"""What a worker process holds does not grow with the number of files it has read, nor does the number of open files."""

import mmap
import multiprocessing
import os
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from datasets import decode, sampling
from datasets.decode import DecodeError, read_video
from datasets.records import ShardMember
from tests.datasets.shards import members_of, write_tar

GROWTH = 8e6
"""Bytes between two levels. One process's goes up and down by some 3 MB, whatever it reads; a decoder that stays costs
5 MB or more each time, and a clip of 4 frames of 64 pixels 50 kB."""
UNREADABLE = ("corrupted.mp4", "empty.mp4", "not_a_video.mp4", "truncated.mp4")


def first_frames(length: int) -> np.ndarray:
    """Few frames to decode, so that there is time for many files; everything is opened and closed all the same."""
    return np.arange(min(4, length))


def all_over(length: int) -> np.ndarray:
    return sampling.uniform(4, length, np.random.default_rng(0))


def files_and_members(paths: Sequence[Path], folder: Path) -> list[str | ShardMember]:
    """The files, and the same once more in a shard."""
    shard = write_tar(folder / "a.tar", *((path.name, path.read_bytes()) for path in paths))
    return [*map(str, paths), *members_of(shard).values()]


def _worker(
    files: Sequence[str | ShardMember], decodes: int, choose: decode.ChooseFrames, connection: Connection
) -> None:
    """Read file after file as a loader's worker does; sends after each how much memory and how many files are held."""
    held = []
    for number in range(decodes):
        try:
            read_video(files[number % len(files)], 64, choose)
        except DecodeError:
            pass
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        held.append((pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))))
    connection.send(held)


def measure(files: Sequence[str | ShardMember], decodes: int, choose: decode.ChooseFrames) -> list[tuple[int, int]]:
    """(bytes, open files) of a forked process after each decode."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_worker, args=(files, decodes, choose, theirs))
    process.start()
    theirs.close()
    held = ours.recv()
    process.join()
    return held


def assert_level(held: Sequence[tuple[int, int]], files: int) -> None:
    """The last round of the files finds what the second left: the first one warms up, as arenas and tables are made."""
    assert len(held) >= 4 * files
    memory, opened = zip(*held, strict=True)
    begun, ended = median(memory[files : 2 * files]), median(memory[-files:])
    assert ended - begun < GROWTH, f"{begun / 1e6:.1f} MB became {ended / 1e6:.1f}"
    assert max(opened[files:]) == min(opened[files:])


def readable(real_data: Path) -> list[Path]:
    hard = [path for path in sorted((real_data / "clips/hard").iterdir()) if path.name not in UNREADABLE]
    return [*sorted((real_data / "clips/videos").iterdir()), *hard]


def test_320_decodes_of_real_clips_leave_nothing(real_data: Path, tmp_path: Path) -> None:
    files = files_and_members(readable(real_data), tmp_path)
    assert len(files) == 48
    assert_level(measure(files, 320, first_frames), len(files))


@pytest.mark.soak
def test_5000_decodes_of_real_clips_leave_nothing(real_data: Path, tmp_path: Path) -> None:
    files = files_and_members(readable(real_data), tmp_path)
    assert_level(measure(files, 5000, all_over), len(files))


def test_320_unreadable_files_leave_nothing(real_data: Path, tmp_path: Path) -> None:
    files = files_and_members([real_data / "clips/hard" / name for name in UNREADABLE], tmp_path)
    assert_level(measure(files, 320, first_frames), len(files))


def new_pages(size: int) -> mmap.mmap:
    """Memory from the system: the heap of a process that has had more before would give what it holds already."""
    pages = mmap.mmap(-1, size)
    pages.write(b"x" * size)
    return pages


@pytest.mark.parametrize("leak", ["memory", "files"])
def test_a_leak_is_found(real_data: Path, leak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[object] = []
    keep: dict[str, Callable[[str], object]] = {"memory": lambda path: new_pages(50_000), "files": open}
    readings = [decode.Reading(np.zeros((1, 1, 1, 3)), np.zeros(1), np.zeros(1), "", "")]
    monkeypatch.setattr(decode, "_read", lambda source, *_: kept.append(keep[leak](source.address)) or readings)
    files = [str(real_data / "clips/hard/rot_0.mov")] * 8
    with pytest.raises(AssertionError, match="became" if leak == "memory" else "max"):
        assert_level(measure(files, 320, first_frames), len(files))
