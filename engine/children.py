"""Child processes that hear each signal once, from us.

Each gets a session of its own, so that Ctrl-C in a terminal reaches this process alone, which hands it on: a child
that heard it twice would end without saving.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

HANDED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Children:
    """Starts processes and hands signals on to them; leaves none behind when its context ends.

    Attributes:
        received: the signals that came, in order.
    """

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.received: list[int] = []
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._hand_on) for number in HANDED_ON}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned

    def start(
        self, words: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """Start a command. One that starts after a signal was handed on hears of it as well."""
        known = len(self.received)
        process = subprocess.Popen(words, env=environment, cwd=cwd, start_new_session=True)
        self.processes.append(process)
        for number in self.received[known:] or self.received[-1:]:
            process.send_signal(number)

    def statuses(self) -> list[int | None]:
        """The exit status of each, minus the signal that ended it, or None while it runs."""
        return [process.poll() for process in self.processes]

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        for process in self.processes:
            process.send_signal(number)


def run_child(words: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> int:
    """The exit status of a command, run to its end; `KeyboardInterrupt` once it has ended after Ctrl-C."""
    with Children() as children:
        children.start(words, environment, cwd)
        status = children.processes[0].wait()
    if signal.SIGINT in children.received:
        raise KeyboardInterrupt
    return status
