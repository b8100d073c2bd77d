"""Requests to stop: SIGTERM, SIGINT (Ctrl-C), or SIGUSR1, with which Slurm warns that a job's time is almost over.

A training run finishes its step, saves, and ends with the exit status `SAVED`, on which a batch script starts it again.
Anything else has nothing to save and ends at once. A second Ctrl-C ends a run at once.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
SAVED = 75
"""EX_TEMPFAIL of sysexits.h: a temporary failure, try again."""
ENDED = 130
"""128 + SIGINT, as shells report it: Ctrl-C ended a command that had no training run to save."""


class Interrupted(Exception):
    """The run was told to stop; all of its work is saved."""


class Interruption:
    """Handles the signals while its context lasts. Each raises `Interrupted` at once, except inside `deferred`.

    Attributes:
        signal: the name of the latest signal; None if there was none.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._defers = False
        self._process = os.getpid()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        # Python allows only the main thread to set handlers.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._received) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only record signals inside, for code that checks for them where it can save."""
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
        if os.getpid() != self._process:
            return  # a data worker that has just been forked: the trainer handles the signal, and ends the worker
        self.signal = signal.Signals(number).name
        if number == signal.SIGINT:
            # The kernel ends the process at the next Ctrl-C, even if it waits in a collective or for a GPU.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not self._defers:
            self.raise_if_any()
        elif number == signal.SIGINT and is_first_rank():
            # Not through a stream: the signal may have interrupted a write to it.
            os.write(2, b"\nfinishing the step and saving; a second Ctrl-C ends at once\n")


def is_first_rank() -> bool:
    """Whether this is rank 0, or a process that was started alone; needs no torch."""
    return os.environ.get("RANK", "0") == "0"


def exit_by_ctrl_c() -> NoReturn:
    """End a command with one line and the status `ENDED`; another Ctrl-C ends the process at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if is_first_rank():
        script = Path(sys.argv[0])
        name = script.parent.name if script.stem == "__main__" else script.stem
        print(f"{name}: ended by Ctrl-C", file=sys.stderr)
    sys.exit(ENDED)


def report_ctrl_c_in_one_line() -> None:
    """Have a KeyboardInterrupt that nothing catches end this process as `exit_by_ctrl_c` does."""
    report = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            exit_by_ctrl_c()
        report(kind, error, trace)

    sys.excepthook = hook
