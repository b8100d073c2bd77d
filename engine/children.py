"""Child processes that receive each signal once, from us.

Each child has its own session, so that Ctrl-C in a terminal reaches only this process, which forwards it: a child that
received it twice would end without saving.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Children:
    """Starts processes and forwards signals to them; kills those that still run when its context ends.

    Attributes:
        received: the signals received so far, in order.
    """

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.received: list[int] = []
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._forward) for number in FORWARDED}
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
        """Start a command. If a signal was forwarded before, the new process receives it too."""
        num_forwarded = len(self.received)
        process = subprocess.Popen(words, env=environment, cwd=cwd, start_new_session=True)
        self.processes.append(process)

        # Signals that came during the start went only to the processes in the list then.
        for number in self.received[num_forwarded:] or self.received[-1:]:
            process.send_signal(number)

    def statuses(self) -> list[int | None]:
        """The exit status of each process: negative for the signal that ended it, None while it runs."""
        return [process.poll() for process in self.processes]

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        for process in self.processes:
            process.send_signal(number)


def run_child(words: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> int:
    """Run a command to its end and return its exit status; raises `KeyboardInterrupt` afterwards if Ctrl-C came."""
    with Children() as children:
        children.start(words, environment, cwd)
        status = children.processes[0].wait()
    if signal.SIGINT in children.received:
        raise KeyboardInterrupt
    return status
