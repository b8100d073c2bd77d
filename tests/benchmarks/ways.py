"""Ways to do nothing much, for tests of how the benchmark measures: built and called in processes of their own."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.measure import Case, Row, Variant
from benchmarks.settings import Settings

MODULE = "tests.benchmarks.ways"
MIB = 2**20


def logged(settings: Settings, name: str, log: str) -> Callable[[], None]:
    """Writes when each call begins and ends."""
    print("noise on stdout")  # is not to be taken for an answer

    def work() -> None:
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{name} begins\n")
            file.flush()
            time.sleep(0.05)
            file.write(f"{name} ends\n")

    return work


def seconds(settings: Settings, values: Sequence[float]) -> Callable[[], float]:
    """Says the times of its calls itself, the one to warm up included."""
    remaining = iter(values)
    return lambda: next(remaining)


def told(settings: Settings, path: str) -> Callable[[], float]:
    """Writes down what it was told."""
    torch_threads = torch.get_num_threads()
    Path(path).write_text(f"{settings!r} {torch_threads} {os.environ['OMP_NUM_THREADS']}", encoding="utf-8")
    return lambda: 1.0


def memory(settings: Settings, held: int, touched: int) -> Callable[[], None]:
    """Holds so many MiB from the beginning, and touches as many more in each call."""
    kept = torch.ones(held * MIB // 4)

    def work() -> None:
        more = torch.ones(touched * MIB // 4)
        assert kept[0] == more[0]

    return work


def failing(settings: Settings, when: str) -> Callable[[], None]:
    """Raises while it is built, or in its second call; or is killed in it; or never ends it."""
    if when == "build":
        raise ValueError("cannot be built")
    calls = iter(range(9))

    def work() -> None:
        if next(calls) == 0:
            return
        if when == "call":
            raise RuntimeError("broke in the second call")
        if when == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)

    return work


def variant(function: str, /, **arguments: object) -> Variant:
    """One of the above."""
    return Variant(f"{MODULE}:{function}", arguments)


def cases(settings: Settings) -> list[Case]:
    """As a module of the benchmark has it: one case with everything, one with ours alone, one that fails."""
    rounds = settings.rounds
    whole = Case(
        "whole",
        variant("seconds", values=[9.0, *[2.0] * rounds]),
        naive=variant("seconds", values=[9.0, *[3.0] * rounds]),
        limit=variant("seconds", values=[9.0, *[1.5] * rounds]),
        peer=variant("seconds", values=[9.0, *[2.5] * rounds]),
    )
    alone = Case("alone", variant("seconds", values=[0.0, *[0.002] * rounds]))
    fails = [Case("fails", variant("failing", when="build"))] if "seed=13" in settings.overrides else []
    return [whole, *fails, alone]


def notes(settings: Settings, rows: Sequence[Row]) -> list[str]:
    """A line to stand below the table."""
    return [f"{len(rows)} rows"]
