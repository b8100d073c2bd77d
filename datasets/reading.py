"""What worker processes read: they say it on a board in shared memory, so that it is known of who hangs or dies."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils.data import get_worker_info

LONGEST_PATH = 8192
"""Bytes; a path on Linux has at most 4096."""


class Reading(NamedTuple):
    """What a worker process reads, "" for nothing, and the `time.monotonic_ns` at which it began."""

    process: int
    path: str
    since: int


class Board:
    """A line for each worker process, in memory shared with it, on which it says what it reads."""

    def __init__(self, workers: int) -> None:
        try:
            # The process, and since when it reads, 0 for nothing.
            self._state = torch.zeros(workers, 2, dtype=torch.int64).share_memory_()
            self._paths = torch.zeros(workers, LONGEST_PATH, dtype=torch.uint8).share_memory_()
        except RuntimeError as error:
            raise ValueError(
                f"train.workers: no shared memory for {workers} processes ({error}); make /dev/shm larger or lower it"
            ) from None

    def enter(self, worker: int) -> None:
        """Say who has the line."""
        self._state[worker, 0] = os.getpid()

    def begin(self, worker: int, path: str) -> None:
        """Say what is read from now on; the time comes last, as it is what makes the line count."""
        name = torch.frombuffer(bytearray(os.fsencode(path)), dtype=torch.uint8)
        self._paths[worker, : len(name)] = name
        self._paths[worker, len(name) :] = 0
        self._state[worker, 1] = time.monotonic_ns()

    def end(self, worker: int) -> None:
        """Say that nothing is read."""
        self._state[worker, 1] = 0

    def readings(self) -> list[Reading]:
        """The lines of all workers that have begun to work."""
        found = []
        for state, name in zip(self._state, self._paths, strict=True):
            process, since = state.tolist()
            path = os.fsdecode(name.numpy().tobytes().rstrip(b"\0")) if since else ""
            # Another file by now: what was read was of two lines.
            if int(state[1]) != since:
                since, path = 0, ""
            if process:
                found.append(Reading(process, path, since))
        return found


@dataclass(frozen=True)
class Line:
    """One worker's line of the board, for the data set that reads in it."""

    board: Board
    worker: int

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """Have the path on the board meanwhile."""
        self.board.begin(self.worker, path)
        try:
            yield
        finally:
            self.board.end(self.worker)


def begin_work(board: Board, worker: int) -> None:
    """What each worker process does first, so that its data set writes to the board."""
    # Forked processes have the trainer's handlers. Slurm warns all processes of a job, and a terminal sends Ctrl-C to
    # all of them: the trainer alone acts on it. (torch sees to SIGTERM, which ends a worker.)
    for number in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    board.enter(worker)
    information = get_worker_info()
    assert information is not None, "in a worker process"
    watched: Any = information.dataset
    watched.watch(Line(board, worker))
