"""Workers end, whatever has become of one of them: no lock of a dead one is waited for."""

import multiprocessing
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from datasets.ending import EndFlag, without_locked_events
from tests.datasets.test_watching import dataset, images, kill, loader, processes


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
