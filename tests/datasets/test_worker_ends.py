"""Workers end, and work: no lock of a dead one is waited for, and no thread that a fork does not have."""

import gc
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from datasets.ending import EndFlag, without_locked_events
from tests.datasets.test_watching import Troubled, dataset, images, kill, loader, processes


def answer(flag: EndFlag, pipe: Connection) -> None:
    """Say whether the flag is set, each time that one is asked."""
    while pipe.recv():
        pipe.send(flag.is_set())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_flag_is_seen_by_another_process(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: method)
    context = without_locked_events()
    assert context.get_start_method() == method
    here, there = context.Pipe()
    flag = context.Event()
    process = context.Process(target=answer, args=(flag, there))
    process.start()
    for value in (False, True):
        here.send(True)
        assert here.recv() is value is flag.is_set()
        flag.set()
    here.send(False)
    process.join(30)
    assert process.exitcode == 0
    assert not isinstance(multiprocessing.get_context(method).Event(), EndFlag), "other code has events as ever"


def test_loaders_tell_their_workers_by_it(tmp_path: Path) -> None:
    """torch takes events from the context that a loader was given: the trainer's side and the workers' are one flag."""
    train = loader(dataset(images(tmp_path, 16)))
    next(train.epoch(0))
    assert isinstance(train._loader._iterator._workers_done_event, EndFlag)
    kill(processes(train), signal.SIGKILL)
    train._loader._end_workers()
    assert train._loader._iterator is None


class Decoder:
    """Holds itself, so that it is garbage in the end; to free it in another process than its own takes for ever."""

    freed: list[int] = []

    def __init__(self) -> None:
        self.process, self.itself = os.getpid(), self

    def __del__(self) -> None:
        if os.getpid() != self.process:
            time.sleep(3600)
        self.freed.append(self.process)


class Tidy(Troubled):
    """Collects garbage whenever it reads."""

    def _read(self, video: int, epoch: int, draw: int) -> Any:
        gc.collect()
        return super()._read(video, epoch, draw)


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="other processes inherit no garbage")
def test_workers_do_not_free_what_the_trainer_threw_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was garbage before is freed here at once; what becomes garbage while they start waits until they have."""
    data = dataset(images(tmp_path, 8))
    monkeypatch.setattr(data, "__class__", Tidy)
    monkeypatch.setattr(Decoder, "freed", [])
    freeze = gc.freeze

    def throw_away_and_freeze() -> None:
        Decoder()
        freeze()

    monkeypatch.setattr(gc, "freeze", throw_away_and_freeze)
    gc.disable()
    try:
        Decoder()
        batches = list(loader(data, sample_timeout=5.0).epoch(0))
        assert Decoder.freed == [os.getpid()]
        gc.collect()
        assert Decoder.freed == [os.getpid()] * 2
    finally:
        gc.enable()
    assert len(batches) == 4 and not any(batch["failed"] for batch in batches)
