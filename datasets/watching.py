"""A DataLoader that survives workers which hang on a file, or die.

The contents of a batch follow from its number alone. So when something goes wrong, the loader ends all its workers and
starts new ones at the first batch that has not been delivered.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.ending import without_inherited_garbage, without_locked_events
from datasets.reading import Board, OwnLine, Reading, Told, Watched, begin_work

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How often the workers are checked while the trainer waits for a batch."""
MAX_RESTARTS = 20
"""Restarts in a row without a single batch; after them the cause is not one bad file, and the loader raises."""


class WatchedData(Protocol):
    """A dataset that can exclude videos, and that reports on a board which file it is reading."""

    def __getitem__(self, item: Any) -> Any: ...

    def watch(self, line: Watched) -> None:
        """Report on this line which file is being read."""

    def exclude(self, reasons: Mapping[str, str]) -> bool:
        """Stop opening these paths, each for a reason; returns whether any of them is new."""


class BatchLists(Sampler[list[Any]], ABC):
    """The items of each batch, starting at the first that has not been `delivered`."""

    delivered = 0

    def __iter__(self) -> Iterator[list[Any]]:
        return self.after(self.delivered)

    @abstractmethod
    def after(self, batches: int) -> Iterator[list[Any]]:
        """The lists from this batch on; every call gives the same."""


class WatchedLoader:
    """Loads the batches that `lists` names; each new iteration starts with the first of them.

    A video is excluded with `data.exclude`, and the log names it, if a worker cannot read it within `sample_timeout`
    seconds or if a second worker dies while reading it. Dead workers are replaced. No other batch changes. With
    `workers=0`, nothing is watched. `persistent` workers stay alive after the last batch.

    With `timeout_per_frame`, `sample_timeout` counts from the last decoded frame: for files that take long to read.
    `tell` is told how far files are read while a batch is waited for.

    Errors raised by `data` are passed on; ValueError if the workers are restarted 20 times without a batch.
    """

    def __init__(
        self,
        data: WatchedData,
        lists: BatchLists,
        collate: Callable[[Any], Any],
        *,
        workers: int,
        sample_timeout: float,
        persistent: bool = False,
        timeout_per_frame: bool = False,
        tell: Told | None = None,
    ) -> None:
        self._timeout_per_frame, self._tell = timeout_per_frame, tell
        self.data, self.lists, self._collate = data, lists, collate
        self.workers, self.sample_timeout, self.persistent = workers, sample_timeout, persistent and workers > 0

        self._loader: DataLoader | None = None
        self._iterator: Iterator[Any] | None = None

        self._board = Board(workers)
        self._deaths: Counter[str] = Counter()
        self._late: set[Reading] = set()
        self._restarts, self._heard, self._outdated = 0, 0, False

    def __len__(self) -> int:
        assert isinstance(self.lists, Sized), "training names its steps an epoch itself"
        return len(self.lists)

    def __iter__(self) -> Iterator[Any]:
        self.lists.delivered = 0
        if self._outdated or not self.persistent:
            self._end_workers()
        if self._tell is not None and not self.workers:
            self.data.watch(OwnLine(self._tell))
        self._start()  # now, so that workers read ahead while the trainer does something else
        return iter(self._next, None)

    def _next(self) -> Any | None:
        """The next batch, None at the end."""
        self._heard = time.monotonic_ns()
        while True:
            if self._iterator is None:
                self._start()
            assert self._iterator is not None
            try:
                batch = next(self._iterator)
            except StopIteration:
                return None
            except Exception as error:
                waited_in_vain = str(error).startswith("DataLoader timed out")
                if not waited_in_vain and not self._is_of_a_death(error):
                    raise
            else:
                self.lists.delivered += 1
                self._restarts = 0
                return batch

            # Outside `except`: there the error's traceback would still hold the iterator, and workers could not end.
            self._look_after_workers(died=not waited_in_vain)

    def exclude(self, reasons: Mapping[str, str]) -> None:
        """Stop opening these paths, starting with the next iteration."""
        self._outdated |= self.data.exclude(reasons)

    def _start(self) -> None:
        """Let the workers read from the first batch not delivered yet; persistent workers are reused."""
        # torch installs a SIGCHLD handler that raises when a worker dies, perhaps in the middle of a backward pass. We
        # find dead workers ourselves, so we put the old handler back.
        before = signal.getsignal(signal.SIGCHLD)
        try:
            if self._loader is None:
                self._loader = self._new_loader()
            with without_inherited_garbage() if self.workers else nullcontext():
                self._iterator = iter(self._loader)
        except RuntimeError as error:
            if not self.workers:
                raise
            logger.debug("workers begin anew: %s", error)
            self._iterator = None
        finally:
            if before is not None and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGCHLD, before)

        # Persistent workers may be busy with batches that nobody wants any more, or may have died.
        if self._iterator is None:
            self._begin_anew()

    def _new_loader(self) -> DataLoader:
        self._board, self._late, self._outdated = Board(self.workers), set(), False
        return DataLoader(
            cast(Dataset, self.data),
            batch_sampler=self.lists,
            collate_fn=self._collate,
            num_workers=self.workers,
            persistent_workers=self.persistent,
            pin_memory=torch.cuda.is_available(),
            timeout=min(POLL_SECONDS, self.sample_timeout) if self.workers else 0,
            worker_init_fn=partial(begin_work, self._board),
            multiprocessing_context=without_locked_events() if self.workers else None,
            # Its own generator: starting an epoch, or restarting it, must not draw from torch's global one.
            generator=torch.Generator(),
        )

    def _end_workers(self) -> None:
        """Drop the iterator: torch then ends its workers, waiting some seconds for what they are reading."""
        self._iterator = self._loader = None

    def _begin_anew(self) -> None:
        """End the workers; new ones start at the next request for a batch. ValueError after MAX_RESTARTS in a row."""
        self._end_workers()
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise ValueError(
                f"train.workers: {self.workers} processes that read videos were begun {MAX_RESTARTS} times without "
                "making a batch; look for an end of memory (dmesg) or of /dev/shm, and whether the storage answers"
            )

    def _is_of_a_death(self, error: Exception) -> bool:
        """Whether a dead worker caused the error, rather than the data."""
        if not self.workers:
            return False
        if str(error).startswith("DataLoader worker (pid"):
            return True
        time.sleep(0.1)  # a killed process closes its connections a moment before it disappears
        alive = {child.pid for child in multiprocessing.active_children()}
        return any(reading.process not in alive for reading in self._board.readings())

    def _look_after_workers(self, died: bool) -> None:
        """Kill hung workers, exclude what they read, and restart if needed; `died` if a worker is known to be dead."""
        now, alive = time.monotonic_ns(), {child.pid for child in multiprocessing.active_children()}
        readings = self._board.readings(self._timeout_per_frame)
        if self._tell is not None:
            self._tell(self._board.progress())

        dead = [reading for reading in readings if reading.process not in alive]
        late = {
            reading
            for reading in readings
            if reading.path and reading not in dead and now - reading.since > self.sample_timeout * 1e9
        }

        # Only those late twice in a row: after the whole job was suspended, all look late once and then continue.
        hung, self._late = late & self._late, late

        for reading in dead:
            self._mourn(reading)
        for reading in hung:
            what = "no frame of it was read" if self._timeout_per_frame else "not read"
            self._give_up(reading.path, f"{what} within {self.sample_timeout:g} seconds")
        for reading in readings:
            # Also kill workers that opened the same file a little later: they will hang as well.
            if reading.path in {other.path for other in hung} and reading not in dead:
                os.kill(reading.process, signal.SIGKILL)

        # No batch and nobody reading: workers that do nothing for too long are restarted as well.
        if any(reading.path for reading in readings):
            self._heard = now
        silent = now - self._heard > self.sample_timeout * 1e9

        if dead or died or hung or silent:
            self._begin_anew()

    def _mourn(self, reading: Reading) -> None:
        """Log a dead worker. The video it was reading gets a second try; it is excluded after a second death."""
        if not reading.path:
            logger.error("worker process %d died while it read nothing; another takes its place", reading.process)
            return
        self._deaths[reading.path] += 1
        if self._deaths[reading.path] > 1:
            self._give_up(reading.path, "a second worker process died while reading it")
        else:
            logger.error(
                "worker process %d died while reading %s, which another reads once more", reading.process, reading.path
            )

    def _give_up(self, path: str, reason: str) -> None:
        if self.data.exclude({path: reason}):
            logger.error("%s: %s; it is left out from now on", path, reason)
