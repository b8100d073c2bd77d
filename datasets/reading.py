"""Which file each worker is reading, on a board in shared memory, so that the trainer knows who hangs on what."""

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
    """The file that a worker process is reading ("" for none), and the `time.monotonic_ns` at which it began."""

    process: int
    path: str
    since: int


class Board:
    """One line per worker, in shared memory: the worker writes which file it is reading, the trainer looks."""

    def __init__(self, workers: int) -> None:
        try:
            # Columns: the process id, and the time since which it is reading, 0 while it reads nothing.
            self._state = torch.zeros(workers, 2, dtype=torch.int64).share_memory_()
            self._paths = torch.zeros(workers, LONGEST_PATH, dtype=torch.uint8).share_memory_()
        except RuntimeError as error:
            raise ValueError(
                f"train.workers: no shared memory for {workers} processes ({error}); make /dev/shm larger or lower it"
            ) from None

    def enter(self, worker: int) -> None:
        """Write which process owns the line."""
        self._state[worker, 0] = os.getpid()

    def begin(self, worker: int, path: str) -> None:
        """Write which file is read from now on. The time is written last, because it makes the line valid."""
        name = torch.frombuffer(bytearray(os.fsencode(path)), dtype=torch.uint8)
        self._paths[worker, : len(name)] = name
        self._paths[worker, len(name) :] = 0
        self._state[worker, 1] = time.monotonic_ns()

    def end(self, worker: int) -> None:
        """Mark the line as reading nothing."""
        self._state[worker, 1] = 0

    def readings(self) -> list[Reading]:
        """The lines of all workers that have started."""
        found = []
        for state, name in zip(self._state, self._paths, strict=True):
            process, since = state.tolist()
            path = os.fsdecode(name.numpy().tobytes().rstrip(b"\0")) if since else ""

            # The worker opened another file while we copied: the path may mix both, so drop it.
            if int(state[1]) != since:
                since, path = 0, ""

            if process:
                found.append(Reading(process, path, since))
        return found


@dataclass(frozen=True)
class Line:
    """One worker's line of the board, for the dataset in that worker."""

    board: Board
    worker: int

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """Keep the path on the board while the block runs."""
        self.board.begin(self.worker, path)
        try:
            yield
        finally:
            self.board.end(self.worker)


def begin_work(board: Board, worker: int) -> None:
    """Prepare a worker process: ignore signals meant for the trainer, and connect its dataset to the board."""
    # A forked worker inherits the trainer's handlers. Slurm sends its warning, and a terminal Ctrl-C, to all processes
    # of a job, but only the trainer should act on it. (torch handles SIGTERM, which ends a worker.)
    for number in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)

    board.enter(worker)
    information = get_worker_info()
    assert information is not None, "in a worker process"
    watched: Any = information.dataset
    watched.watch(Line(board, worker))
