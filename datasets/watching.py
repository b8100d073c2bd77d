"""Batches that come although a file holds its reader for ever or a reader dies: torch's DataLoader, watched.

What a batch holds follows from its number alone, so whenever something goes wrong the worker processes are ended and
others begin with the first batch that has not been handed out.
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
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.reading import Board, Line, Reading, begin_work

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How often the processes are looked at while a batch is waited for."""
MAX_RESTARTS = 20
"""So many times worker processes begin anew without a single batch from them; then something else is wrong."""


class WatchedData(Protocol):
    """A data set whose videos can be left out, and that says on a board what it reads."""

    def __getitem__(self, item: Any) -> Any: ...

    def watch(self, line: Line) -> None:
        """Have on this line whatever is read."""

    def exclude(self, reasons: Mapping[str, str]) -> bool:
        """Open these paths no more, each for a reason; whether any of them is new."""


class BatchLists(Sampler[list[Any]], ABC):
    """The items of each batch, from the first on that has not been `delivered`."""

    delivered = 0

    def __iter__(self) -> Iterator[list[Any]]:
        return self.after(self.delivered)

    @abstractmethod
    def after(self, batches: int) -> Iterator[list[Any]]:
        """The lists from this batch on; the same whenever it is asked."""


class WatchedLoader:
    """The batches that `lists` names; going through them once more begins anew.

    A video that is not read within `sample_timeout` seconds, or that a second process dies of, is excluded, as
    `data.exclude` says, and named in a warning; processes that are gone are replaced. Nothing of that changes another
    batch. With no workers nothing is watched. `persistent` workers live on when the batches are at their end.

    Errors of `data` are raised as they come; ValueError if processes begin anew 20 times without a batch.
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
    ) -> None:
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
        self._start()  # now, so that they read while the trainer does something else
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
            # Out here, where the error, and with it the iterator, is let go.
            self._look_after_workers(died=not waited_in_vain)

    def exclude(self, reasons: Mapping[str, str]) -> None:
        """Open these paths no more, from the next time on that the batches begin."""
        self._outdated |= self.data.exclude(reasons)

    def _start(self) -> None:
        """Have workers read from the first batch that has not been delivered; those that live on, if there are any."""
        # torch's own handler would raise wherever the trainer is when a worker dies, in the middle of a backward pass.
        before = signal.getsignal(signal.SIGCHLD)
        try:
            if self._loader is None:
                self._loader = self._new_loader()
            self._iterator = iter(self._loader)
        except RuntimeError as error:
            if not self.workers:
                raise
            logger.debug("workers begin anew: %s", error)
            self._iterator = None
        finally:
            if before is not None and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGCHLD, before)
        if self._iterator is None:
            # Those that lived on are busy with batches nobody has asked for, or did not live on.
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
            # Its own, so that beginning an epoch, or beginning it again after a stop, draws nothing from torch's.
            generator=torch.Generator(),
        )

    def _end_workers(self) -> None:
        """torch ends the processes when nobody has their iterator; it waits for what they read, for some seconds."""
        self._iterator = self._loader = None

    def _begin_anew(self) -> None:
        """End the workers; others start when the next batch is asked for. ValueError if that never helps."""
        self._end_workers()
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise ValueError(
                f"train.workers: {self.workers} processes that read videos were begun {MAX_RESTARTS} times without "
                "making a batch; look for an end of memory (dmesg) or of /dev/shm, and whether the storage answers"
            )

    def _is_of_a_death(self, error: Exception) -> bool:
        """Whether it comes from a process that is gone, and not from the data."""
        if not self.workers:
            return False
        if str(error).startswith("DataLoader worker (pid"):
            return True
        time.sleep(0.1)  # what is killed closes its connections a moment before it is gone
        alive = {child.pid for child in multiprocessing.active_children()}
        return any(reading.process not in alive for reading in self._board.readings())

    def _look_after_workers(self, died: bool) -> None:
        """End what hangs, exclude what was read then, and begin anew if need be; `died` if a process is known to be."""
        now, alive = time.monotonic_ns(), {child.pid for child in multiprocessing.active_children()}
        readings = self._board.readings()
        dead = [reading for reading in readings if reading.process not in alive]
        late = {
            reading
            for reading in readings
            if reading.path and reading not in dead and now - reading.since > self.sample_timeout * 1e9
        }
        # Not at first sight: if the whole job was held up, all are late and go on at once.
        hung, self._late = late & self._late, late
        for reading in dead:
            self._mourn(reading)
        for reading in hung:
            self._give_up(reading.path, f"not read within {self.sample_timeout:g} seconds")
        for reading in readings:
            # Those that have begun with the same file a moment later, too.
            if reading.path in {other.path for other in hung} and reading not in dead:
                os.kill(reading.process, signal.SIGKILL)
        if any(reading.path for reading in readings):
            self._heard = now
        silent = now - self._heard > self.sample_timeout * 1e9
        if dead or died or hung or silent:
            self._begin_anew()

    def _mourn(self, reading: Reading) -> None:
        """Say that a process died; what it read is read once more, but not a third time."""
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
