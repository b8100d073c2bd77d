"""Heartbeats: a small file for each rank that says what the rank is doing, and outlives its process."""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

logger = logging.getLogger("engine")

# Bytes of a file: one page, so that a reader on a local disk sees either the old beat or the new one, never a mixture.
LENGTH = 4096
MOST_SAMPLES, MOST_LOST, LONGEST_NAME, LONGEST_ERROR = 8, 8, 120, 240

Doing = Literal["starting", "loading", "training", "saving", "evaluating", "ended"]


@dataclass(frozen=True)
class Process:
    """A rank's process. `started`, in clock ticks since boot, tells it from a later process with the same number."""

    rank: int
    host: str
    pid: int
    started: int
    namespace: str  # of process numbers, which mean nothing in another container

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid} on {self.host})"

    def sees(self, other: "Process") -> bool:
        """Whether `other` is on this host, and its number can be looked up here."""
        return bool(self.namespace) and (self.host, self.namespace) == (other.host, other.namespace)

    def is_running(self) -> bool:
        """Whether it still runs, for a process that `sees` it. A zombie does not."""
        state, started = _state_and_start(self.pid)
        return started == self.started and state not in ("Z", "X")


def this_process(rank: int) -> Process:
    """The calling process. Without /proc, processes cannot see each other, and only their files tell who runs."""
    pid, namespace = os.getpid(), Path("/proc/self/ns/pid")
    _, started = _state_and_start(pid)
    return Process(rank, socket.gethostname(), pid, started, os.readlink(namespace) if started else "")


def _state_and_start(pid: int) -> tuple[str, int]:
    """The state and start time of a process, ("", 0) if there is none; see proc(5)."""
    try:
        # The second field is the program's name in brackets, which may hold spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return "", 0
    return fields[0].decode(), int(fields[19])


@dataclass(frozen=True)
class Beat:
    """The content of a heartbeat file.

    `samples` are the first of the batch, and `more` is the number of the others. `error` is the error that the rank
    ended with, and `lost` the ranks that it has given up, with the reasons. `alive` counts up as long as the process
    runs, whatever its main thread does.
    """

    process: Process
    step: int = 0
    doing: Doing = "starting"
    samples: tuple[str, ...] = ()
    more: int = 0
    error: str | None = None
    lost: Mapping[int, str] = field(default_factory=dict)
    time: str = ""
    alive: int = 0

    def place(self) -> str:
        """Where the rank is, in words: "at step 57, training on a.mp4, b.mp4 and 30 more"."""
        names = ", ".join(self.samples) + (f" and {self.more} more" if self.more else "")
        # A rank that loads a batch does not know its samples yet: these are of the batch before.
        joined = f" {'after' if self.doing == 'loading' else 'on'} {names}" if names else ""
        return f"at step {self.step}, {self.doing}{joined}"


class Heartbeat:
    """This rank's file in the run's folder. The main thread beats; the watchdog's thread keeps it alive.

    A beat is one write of fixed length into the page cache: it takes microseconds, and nothing waits for the disk.
    `ValueError` if the folder cannot be written to. As a context manager it records the error that ended the block.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.process = this_process(rank)
        self.folder = folder
        self.latest = Beat(self.process)
        self.beaten_at = time.monotonic()
        self._lock = threading.Lock()
        self._written = True

        path = heartbeat_file(self.folder, rank)
        self._refuse_a_folder_in_use()
        self._new_folders = [made for made in (folder, folder.parent) if not made.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # A new file: a lingering process of an earlier start keeps writing to the old one, which is unlinked.
            path.unlink(missing_ok=True)
            self._file: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.pwrite(self._file, encode(self.latest), 0)
        except OSError as error:
            raise ValueError(
                f"output_dir: cannot write {path} ({error}); choose an output_dir that can be written to"
            ) from error

    def _refuse_a_folder_in_use(self) -> None:
        """`ValueError` if another run is using the folder, as far as this host can see."""
        other = read_beat(self.folder, self.process.rank)
        if other is None or other.doing == "ended" or other.process == self.process:
            return
        if self.process.sees(other.process) and other.process.is_running():
            raise ValueError(
                f"output_dir: process {other.process.pid} is using {self.folder.parent}, {other.place()}; wait until "
                "it ends, or choose another output_dir"
            )

    def beat(self, step: int, doing: Doing, samples: Sequence[str] = ()) -> None:
        """Record what this rank does now; for the main thread."""
        self.beaten_at = time.monotonic()
        self._say(
            step=step,
            doing=doing,
            samples=tuple(name[-LONGEST_NAME:] for name in samples[:MOST_SAMPLES]),
            more=max(0, len(samples) - MOST_SAMPLES),
        )

    def end(self, error: str | None) -> None:
        """Record that this rank ends, and with which error, if any. Later calls change nothing."""
        self._say(doing="ended", error=None if error is None else error[:LONGEST_ERROR])

    def discard(self) -> None:
        """Remove the file, and the folders made for it if they are empty: nothing has begun."""
        heartbeat_file(self.folder, self.process.rank).unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            for folder in self._new_folders:
                folder.rmdir()

    def stay_alive(self, lost: Mapping[int, str]) -> None:
        """Record that the process runs, and which ranks it has given up; waits until other hosts can read it."""
        with self._lock:
            first = dict(list(lost.items())[:MOST_LOST])
            self.latest = replace(self.latest, alive=self.latest.alive + 1, lost=first)
            self._write()
            file = self._file
        if file is not None:
            try:
                os.fsync(file)  # a network file system may not pass on what is written before this
            except OSError as error:
                self._complain(error)

    def __enter__(self) -> "Heartbeat":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A run that calls sys.exit has reported its error; if ranks are lost, they are the reason.
        failed = error is not None and not isinstance(error, SystemExit) and not self.latest.lost
        self.end(str(error) or repr(error) if failed else None)
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _say(self, **changes: Any) -> None:
        with self._lock:
            if self.latest.doing != "ended":
                self.latest = replace(self.latest, **changes, time=time.strftime("%Y-%m-%d %H:%M:%S"))
                self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        try:
            os.pwrite(self._file, encode(self.latest), 0)
            self._written = True
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        """Log the first of several failures in a row. Training continues until other hosts miss the heartbeat."""
        if self._written:
            logger.error("%s: cannot write its heartbeat: %s", self.process, error)
        self._written = False


def heartbeat_file(folder: Path, rank: int) -> Path:
    """A rank's file in the folder of heartbeats."""
    return folder / f"rank_{rank:05d}.json"


def encode(beat: Beat) -> bytes:
    """A beat as a JSON object, padded with spaces to `LENGTH` bytes; sample names that do not fit are only counted."""
    values = {**vars(beat.process), **vars(beat)}  # `dataclasses.asdict` copies deeply and is ten times slower
    del values["process"]

    samples, text = list(beat.samples), json.dumps(values)
    while len(text) >= LENGTH and samples:
        samples.pop()
        values.update(samples=samples, more=beat.more + len(beat.samples) - len(samples))
        text = json.dumps(values)

    assert len(text) < LENGTH, "everything else is cut to a length that fits"
    return (text.ljust(LENGTH - 1) + "\n").encode("ascii")


def read_beat(folder: Path, rank: int) -> Beat | None:
    """The beat in a rank's file; None if there is no file, or only half of one at this moment."""
    try:
        values = json.loads(heartbeat_file(folder, rank).read_bytes())
        process = Process(**{name: values.pop(name) for name in Process.__dataclass_fields__})
        lost = {int(number): why for number, why in values.pop("lost").items()}
        return Beat(process, **{**values, "samples": tuple(values["samples"])}, lost=lost)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # the last three: JSON of another shape
        return None
