"""Times variants of the same work against each other, each in a process of its own, taking turns.

A process of its own keeps one variant's memory and allocator settings from the others; taking turns spreads a machine's
slow minutes over all of them. Only one process works at any time.
"""

import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, NamedTuple, Self

from benchmarks.settings import Settings

SECONDS_A_CALL = 3600.0
"""After which a variant is given up; no call of any benchmark takes a tenth of it."""
ERROR_LINES = 12


@dataclass(frozen=True)
class Variant:
    """One way to do the work.

    Attributes:
        build: `module:function`; `function(settings, **arguments)` returns the callable without arguments that is
            measured. What that returns is its time in seconds, or None to have it timed from outside.
        arguments: JSON-able.
    """

    build: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """The ways to do one piece of work: ours, what the reference does, a peer's, and what the machine can do."""

    is_long: ClassVar[bool] = False

    name: str
    ours: Variant
    naive: Variant | None = None
    peer: Variant | None = None
    limit: Variant | None = None


class LongCase(Case):
    """Work of minutes, which is not done once more to warm up."""

    is_long = True


class Call(NamedTuple):
    """Seconds of one call, and the bytes it had at most on top of what was there before the first; None if unknown."""

    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Row:
    """Medians over rounds in seconds, their ratios, and the largest peaks; `spread` has least and most of each time."""

    name: str
    ours_s: float
    naive_s: float | None
    limit_s: float | None
    peer_s: float | None
    ours_over_limit: float | None
    naive_over_ours: float | None
    peak_bytes_ours: int | None
    peak_bytes_naive: int | None
    spread: dict[str, tuple[float, float]]

    def as_json(self) -> dict[str, Any]:
        """All but the spread."""
        row = asdict(self)
        del row["spread"]
        return row


class ChildError(RuntimeError):
    """A variant's process ended or hung; the text ends with its last lines on stderr."""


class Child:
    """A process that builds one variant and runs it on request; a context manager that ends it."""

    def __init__(self, variant: Variant, settings: Settings) -> None:
        self.variant = variant
        self._errors: IO[bytes] = tempfile.TemporaryFile()

        # Libraries read their number of threads when they are imported.
        threads = str(settings.threads)
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads),
        }

        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )
        self._is_built = False
        self._send({"settings": asdict(settings), "variant": asdict(variant)})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            stream.close()

    def wait_until_built(self) -> None:
        """Wait for the variant to be ready to run; what it does until then is not measured."""
        if not self._is_built:
            self._receive()
            self._is_built = True

    def call(self) -> Call:
        """Run the variant once."""
        self.wait_until_built()
        self._send("call")
        return Call(**self._receive())

    def _send(self, message: object) -> None:
        """Send one line of JSON."""
        sender = self._process.stdin
        assert sender is not None
        try:
            sender.write(json.dumps(message).encode() + b"\n")
            sender.flush()
        except BrokenPipeError:
            raise self._error("ended") from None

    def _receive(self) -> Any:
        """Wait for one line of JSON."""
        receiver = self._process.stdout
        assert receiver is not None
        ready, _, _ = select.select([receiver], [], [], SECONDS_A_CALL)
        if not ready:
            raise self._error(f"has not answered for {SECONDS_A_CALL:.0f} s")
        answer = receiver.readline()
        if not answer:
            raise self._error("ended")
        return json.loads(answer)

    def _error(self, what: str) -> ChildError:
        status = ""
        if what == "ended":
            status = f" with status {self._process.wait()}"
        self._errors.seek(0)
        last_lines = self._errors.read().decode(errors="replace").strip().splitlines()[-ERROR_LINES:]
        self.__exit__(None, None, None)
        return ChildError("\n  ".join([f"{self.variant.build} {self.variant.arguments} {what}{status}:", *last_lines]))


def take_turns(variants: Sequence[Variant], settings: Settings, warm: bool = True) -> list[list[Call]]:
    """The calls of each variant: once to warm up, which is not returned, then once a round, A B C A B C."""
    with ExitStack() as stack:
        children = [stack.enter_context(Child(variant, settings)) for variant in variants]
        for child in children:
            child.wait_until_built()

        # The first call of each warms it up and is not counted.
        for child in children if warm else ():
            child.call()

        calls: list[list[Call]] = [[] for _ in children]
        for _ in range(settings.rounds):
            for child, own in zip(children, calls, strict=True):
                own.append(child.call())
    return calls


def measure(case: Case, settings: Settings) -> Row:
    """Time all variants of a case; ChildError if one of them fails."""
    by_name = {name: getattr(case, name) for name in ("ours", "naive", "limit", "peer")}
    present = {name: variant for name, variant in by_name.items() if variant is not None}
    calls = dict(zip(present, take_turns(list(present.values()), settings, not case.is_long), strict=True))

    seconds: dict[str, list[float]] = {}
    for name, own in calls.items():
        seconds[name] = [call.seconds for call in own]
    median = {name: statistics.median(values) for name, values in seconds.items()}

    return Row(
        name=case.name,
        ours_s=median["ours"],
        naive_s=median.get("naive"),
        limit_s=median.get("limit"),
        peer_s=median.get("peer"),
        ours_over_limit=median["limit"] / median["ours"] if "limit" in median else None,
        naive_over_ours=median["naive"] / median["ours"] if "naive" in median else None,
        peak_bytes_ours=peak_bytes(calls["ours"]),
        peak_bytes_naive=peak_bytes(calls["naive"]) if "naive" in calls else None,
        spread={name: (min(values), max(values)) for name, values in seconds.items()},
    )


def peak_bytes(calls: Sequence[Call]) -> int | None:
    """The largest peak; None where the system does not tell."""
    peaks = [call.peak_bytes for call in calls if call.peak_bytes is not None]
    return max(peaks, default=None)
