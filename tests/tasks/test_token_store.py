"""Tokens come back to the bit, nothing stays on the disk, and a disk without room is met with a remedy."""

import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks import token_store
from tasks.token_store import TokenStore
from tests.integration.runs import ROOT

Usage = namedtuple("Usage", ("total", "used", "free"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tokens_come_back_to_the_bit_in_any_order(tmp_path: Path, dtype: torch.dtype) -> None:
    """Batches of several sizes, with fewer tokens in some, and a slice that is not contiguous."""
    torch.manual_seed(0)
    batches = [torch.randn(3, 5, 4).to(dtype), torch.randn(1, 2, 4).to(dtype), torch.randn(5, 2, 4).to(dtype)]
    batches[2] = batches[2].transpose(0, 1)
    videos = [[4, 0, 7], [2], [9, 3]]
    with TokenStore(tmp_path / "new" / "folder", 6) as store:
        for numbers, batch in zip(videos, batches, strict=True):
            store.add(numbers, batch)
        for numbers, batch in reversed(list(zip(videos, batches, strict=True))):
            for number, tokens in zip(numbers, batch, strict=True):
                found = store.read(number)
                assert found.dtype == dtype and found.shape == (1, *tokens.shape) and torch.equal(found[0], tokens)
        store.add([11], batches[1])  # after reading, still at the end
        assert torch.equal(store.read(11), store.read(2)) and torch.equal(store.read(3)[0], batches[2][1])


def test_no_tokens_stay_in_memory(tmp_path: Path) -> None:
    mebibyte = torch.zeros(1, 256, 1024)
    with TokenStore(tmp_path, 200) as store:
        gc.collect()
        before = _resident()
        tracemalloc.start()
        for video in range(200):
            store.add([video], mebibyte + video)
        for video in range(200):
            assert store.read(video)[0, -1, -1] == video
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()
        assert _resident() - before < 50 * 2**20


def _resident() -> int:
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return 1024 * int(fields["VmRSS"].split()[0])


def test_nothing_has_a_name_nor_stays_after_an_error(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(RuntimeError, match="stop"), TokenStore(tmp_path, 1) as store:
        store.add([0], torch.zeros(1, 16, 2**20))
        assert list(tmp_path.iterdir()) == []
        raise RuntimeError("stop")
    assert store._file.closed
    assert shutil.disk_usage(tmp_path).free > free - 2**26 + 2**25


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time, torch; from tasks.token_store import TokenStore\n"
        "with TokenStore(pathlib.Path(sys.argv[1]), 1) as store:\n"
        "    store.add([0], torch.zeros(1, 4, 4)); print('written', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = torch.zeros(2, 10, 100)  # 4000 bytes a video
    free = {"bytes": 4000 * 1000}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 0, free["bytes"]))
    with TokenStore(tmp_path, 1000) as store:
        store.add([0, 1], tokens)
    free["bytes"] -= 1
    with TokenStore(tmp_path, 1000) as store:
        with pytest.raises(ValueError, match="need 4 MB") as error:
            store.add([0, 1], tokens)
        assert os.fstat(store._file.fileno()).st_size == 0
    for part in ("1000 videos", str(tmp_path), "larger disk", "evaluation.rerank=0"):
        assert part in str(error.value)


class FullDisk:
    """A file that takes a thousand bytes, a hundred at a time."""

    def __init__(self, **_: Any) -> None:
        self.taken = 0

    def seek(self, first_byte: int) -> None:
        assert first_byte == self.taken

    def write(self, data: memoryview) -> int:
        if self.taken == 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.taken += min(100, len(data))
        return min(100, len(data))

    def close(self) -> None:
        pass


def test_a_disk_that_fills_up_is_the_same_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store.tempfile, "TemporaryFile", FullDisk)
    with TokenStore(tmp_path, 300) as store:
        store.add([0, 1], torch.zeros(2, 10, 10))
        store.add([2], torch.zeros(1, 5, 10))
        with pytest.raises(ValueError, match=f"tokens of 300 videos need .* {tmp_path} has .* free; make room"):
            store.add([3], torch.zeros(1, 1, 1))


def test_other_errors_of_the_disk_are_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TokenStore(tmp_path, 1) as store:
        store._file.close()
        store._file = open(os.devnull, "rb", buffering=0)  # noqa: SIM115
        with pytest.raises(OSError, match="not open for writing|Bad file descriptor"):
            store.add([0], torch.zeros(1, 1, 1))
