"""Which file each worker is reading and how far it is, on a board in shared memory.

So the trainer knows who hangs on what, and a command can show how far a long file is read.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import get_worker_info

from datasets.remote.fetch import beating

LONGEST_PATH = 8192
"""Bytes; a path on Linux has at most 4096."""
TELL_SECONDS = 1.0
"""Between two reports of how far a file is, where one process reads by itself."""


class Reading(NamedTuple):
    """The file that a worker process is reading ("" for none), and the `time.monotonic_ns` at which it began."""

    process: int
    path: str
    since: int


class Progress(NamedTuple):
    """How far a file is read: frames that are read, of those wanted, 0 while it is decoded to list its frames.

    `heard` is the `time.monotonic_ns` of the last decoded frame, 0 if there is none yet.
    """

    path: str
    read: int
    wanted: int
    heard: int


Told = Callable[[Sequence[Progress]], None]
"""Told about each second how far the files are that are being read."""


class Watched(Protocol):
    """What a dataset tells while it reads."""

    def reading(self, path: str) -> AbstractContextManager[None]:
        """A file is read while the block runs."""

    def beat(self, read: int, wanted: int) -> None:
        """A frame of the file was decoded; see `datasets.decode.Beat`."""

    def again(self) -> None:
        """The file is still being fetched, and comes."""


@contextmanager
def told_of(line: Watched | None, path: str) -> Iterator[None]:
    """Tell `line`, if there is one, which file is read in the block, and that it gets on while it is fetched."""
    if line is None:
        yield
        return
    with line.reading(path), beating(line.again):
        yield


class Board:
    """One line per worker, in shared memory: the worker writes which file it is reading, the trainer looks."""

    def __init__(self, workers: int) -> None:
        try:
            # Columns: the process id, and the time since which it is reading, 0 while it reads nothing; then the time
            # of the last decoded frame, how many wanted frames are read, and how many are wanted.
            self._state = torch.zeros(workers, 5, dtype=torch.int64).share_memory_()
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
        self._state[worker, 2:] = 0
        self._state[worker, 1] = time.monotonic_ns()

    def again(self, worker: int) -> None:
        """Write that the file is read from now on: what came before was on the way to it."""
        self._state.numpy()[worker, 1] = time.monotonic_ns()

    def beat(self, worker: int, read: int, wanted: int) -> None:
        """Write that a frame was decoded: often, so without PyTorch's overhead."""
        self._state.numpy()[worker, 2:] = time.monotonic_ns(), read, wanted

    def end(self, worker: int) -> None:
        """Mark the line as reading nothing."""
        self._state[worker, 1] = 0

    def readings(self, since_last_frame: bool = False) -> list[Reading]:
        """The lines of all workers that have started.

        With `since_last_frame`, a file counts as read since its last decoded frame, if there is one.
        """
        lines = self._lines()
        if since_last_frame:
            heard = [progress.heard for _, progress in lines]
            return [line._replace(since=last or line.since) for (line, _), last in zip(lines, heard, strict=True)]
        return [line for line, _ in lines]

    def progress(self) -> list[Progress]:
        """How far the files are that are being read, the one that was begun first at the beginning."""
        lines = sorted(self._lines(), key=lambda line: line[0].since)
        return [progress for _, progress in lines if progress.path]

    def _lines(self) -> list[tuple[Reading, Progress]]:
        found = []
        for state, name in zip(self._state, self._paths, strict=True):
            process, since, heard, read, wanted = state.tolist()
            path = os.fsdecode(name.numpy().tobytes().rstrip(b"\0")) if since else ""

            # The worker opened another file while we copied: the path may mix both, so drop it.
            if int(state[1]) != since:
                since, path = 0, ""

            if process:
                found.append((Reading(process, path, since), Progress(path, read, wanted, heard)))
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

    def beat(self, read: int, wanted: int) -> None:
        """A frame of the file was decoded; see `datasets.decode.Beat`."""
        self.board.beat(self.worker, read, wanted)

    def again(self) -> None:
        """The file is still being fetched, and comes."""
        self.board.again(self.worker)


class OwnLine:
    """For a dataset that reads in this process: tells how far it is while it reads, about each second."""

    def __init__(self, tell: Told) -> None:
        self._tell = tell
        self._path, self._told = "", time.monotonic()

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """Tell about this path while the block runs."""
        self._path = path
        yield

    def beat(self, read: int, wanted: int) -> None:
        """A frame of the file was decoded."""
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            self._tell([Progress(self._path, read, wanted, time.monotonic_ns())])

    def again(self) -> None:
        """The file is still being fetched; nobody waits for this process."""


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
