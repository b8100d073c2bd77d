"""Processes forked from a server that has imported torch and the like once; a fresh one would import for seconds.

The server has computed nothing, and none of the project's modules is in it.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
IMPORTED_ONCE = [
    "av",
    "timm.layers",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "torchvision.transforms.v2",
    "transformers",
]


def forking() -> ForkServerContext:
    """The context whose processes are forked from the server of this process, which starts with the first of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED_ONCE)
    return context


class Program:
    """`python WORDS` in the repository, as `subprocess.Popen` starts it: `["-m", "MODULE", ...]` or `["FILE", ...]`.

    Args:
        environment: all of it; what libraries read while they are imported is the server's.
        log: existing file to whose end the program writes all that it says.
    """

    def __init__(self, words: list[str], environment: dict[str, str], log: Path) -> None:
        self._process = forking().Process(target=_become, args=(words, environment, log))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """The exit status, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; `subprocess.TimeoutExpired` after so many seconds."""
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _become(words: list[str], environment: dict[str, str], log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    # As in a process of its own; what a server has forked would start servers otherwise.
    multiprocessing.set_start_method("fork", force=True)
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
