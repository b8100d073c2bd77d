"""Being told to stop: SIGTERM, or SIGUSR1, with which Slurm warns that the time is almost over.

A run that trains finishes its step, saves and ends with a status of its own, `SAVED`, on which a batch script starts it
again. What is not training has nothing to save and ends at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
SAVED = 75
"""EX_TEMPFAIL of sysexits.h: it did not work out this time, try again."""


class Interrupted(Exception):
    """The run was told to stop; all that it has done is saved."""


class Interruption:
    """Listens for the signals while it is entered; not inside `deferred`, one raises `Interrupted` where the code is.

    Attributes:
        signal: the name of the one that came; None so far.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._defers = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        # Python lets no other thread set handlers, nor runs them there.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._received) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal is only noted: whoever has something to save asks for it when that can be done."""
        self._defers = True
        try:
            yield
        finally:
            self._defers = False

    def raise_if_any(self) -> None:
        """`Interrupted` if a signal has come."""
        if self.signal is not None:
            raise Interrupted(f"told to stop by {self.signal}")

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        if not self._defers:
            self.raise_if_any()
