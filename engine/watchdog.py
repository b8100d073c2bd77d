"""A watchdog in every rank: if a rank dies, falls silent or stalls, the run ends and names that rank.

A process in a collective may wait for ever for one that has died. The watchdog's thread therefore looks at the other
ranks' processes on this host and at all ranks' heartbeat files, reports what it finds, once on each host, and ends its
process. It uses no collective, and never compares the clocks of two hosts.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from engine.heartbeat import Beat, Heartbeat, Process, heartbeat_file, read_beat

# All times are in seconds.
LOOK_EVERY = 2.0  # between two looks at the processes of this host
SHARE_EVERY = 5.0  # between writing our heartbeat file and reading the others'
SILENCE = 40.0  # a rank whose file does not change for so long is gone
GRACE = 10.0  # for the main thread to end the process with its own error
ASKING = 8.0  # how long the main thread may wait to learn which rank failed
# Ranks that stall at the same place notice within this time of each other, so that only one of them reports it.
APART = 4.0
# A look that is this late means that this process was suspended or its files did not answer: do not blame the others.
LATE = 10.0
# What a rank does at a given number of finished steps, in order.
ORDER = ("starting", "saving", "evaluating", "loading", "training", "ended")
# Evaluating and saving have no limit here, since a large test set takes hours. Reading files has its own time limit,
# and collectives have that of the process group.
LIMITED = ("loading", "training")


class RankFailed(RuntimeError):
    """Another rank is gone, which stderr reports; this one cannot continue alone."""


class Watchdog:
    """Watches the ranks while its context lasts.

    Args:
        processes: of all ranks, exchanged by a collective at the start. Files of other processes, which an earlier
            start left in the folder, are ignored.
        stall_timeout: the most seconds between two beats of the main thread while it loads or trains.
    """

    def __init__(self, heartbeat: Heartbeat, processes: Sequence[Process], stall_timeout: float) -> None:
        self.heartbeat, self.stall_timeout = heartbeat, stall_timeout
        self.processes = {process.rank: process for process in processes}
        self.others = [process for process in processes if process.rank != heartbeat.process.rank]
        self.beats: dict[int, Beat] = {}
        self.failed: dict[int, str] = {}  # rank -> why it counts as failed
        self._heard = {process.rank: time.monotonic() for process in self.others}
        self._looked = self._excused = self._shared = time.monotonic()
        self._asked, self._reported = False, False
        self._reporting = threading.Lock()
        self._stop, self._found = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self.heartbeat.process.rank == 0:
            # Left by an earlier start with more processes; the present ranks have replaced their own files.
            for path in set(self.heartbeat.folder.glob("rank_?????.json")) - self._files():
                path.unlink(missing_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # With a rank gone, leaving the process group may hang too: the thread then stays until the process ends.
        if not self._found.is_set():
            self._stop.set()
            self._thread.join(LOOK_EVERY)

    def who_failed(self) -> list[str]:
        """The ranks that failed, one line each, for a main thread whose collective failed; waits some seconds.

        Empty if all other ranks are well: then the error is this rank's own.
        """
        self._asked = True
        found = self._found.wait(ASKING)
        self._asked = found
        return self._lines() if found else []

    def explain(self) -> bool:
        """Whether another rank's failure explains a failed collective; reports it, once on each host."""
        if not self.who_failed():
            return False
        self._report()
        return True

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY / 10 if self._asked else LOOK_EVERY):
            now = time.monotonic()
            if now - self._looked > LATE:
                self._excused = now
                self._heard = dict.fromkeys(self._heard, now)
            self._looked = now

            self._look_at_processes()
            is_late = self._has_stalled(now)
            if is_late or self._asked or now - self._shared >= SHARE_EVERY:
                self._share(now)

            if self.failed:
                self._end_after_others()
            elif is_late and not any(is_behind(beat, self.heartbeat.latest) for beat in self.beats.values()):
                self._end_stalled(now)

    def _files(self) -> set[Path]:
        return {heartbeat_file(self.heartbeat.folder, rank) for rank in self.processes}

    def _look_at_processes(self) -> None:
        """Find ranks on this host whose process is gone without having recorded its end."""
        for process in self.others:
            if self.heartbeat.process.sees(process) and not process.is_running():
                self._read(process)
                beat = self.beats.get(process.rank)
                if beat is None or beat.doing != "ended":
                    self.failed[process.rank] = "is gone"

    def _share(self, now: float) -> None:
        """Record that this process runs, and read the others' files; a rank that is silent for long is gone."""
        self._shared = now
        self.heartbeat.stay_alive(self.failed)

        for process in self.others:
            if self._read(process):
                self._heard[process.rank] = now
            beat, silence = self.beats.get(process.rank), now - self._heard[process.rank]

            if beat is not None and beat.error is not None:
                self.failed[process.rank] = f"ended: {beat.error}"
            if beat is not None:
                for rank, reason in beat.lost.items():
                    self.failed.setdefault(rank, reason)
            if silence > SILENCE and (beat is None or beat.doing != "ended"):
                self.failed.setdefault(process.rank, f"has been silent for {silence:.0f} s")

    def _read(self, process: Process) -> bool:
        """Read a rank's file; whether it says something new."""
        beat = read_beat(self.heartbeat.folder, process.rank)
        if beat is None or beat.process != process or beat == self.beats.get(process.rank):
            return False
        self.beats[process.rank] = beat
        return True

    def _has_stalled(self, now: float) -> bool:
        since = max(self.heartbeat.beaten_at, self._excused)
        return self.heartbeat.latest.doing in LIMITED and now - since > self.stall_timeout

    def _end_stalled(self, now: float) -> None:
        """End this process, whose main thread stalls while no rank is behind it; writes the stacks of all threads."""
        latest = self.heartbeat.latest
        reason = f"has made no progress for {now - self.heartbeat.beaten_at:.0f} s"
        text = f"error: {describe(self.heartbeat.process, reason, latest)} ({latest.time})"
        stacks = heartbeat_file(self.heartbeat.folder, latest.process.rank).with_suffix(".stack.txt")

        # Of several ranks that stall at the same place, the first one reports it.
        level = [rank for rank, beat in self.beats.items() if not is_behind(latest, beat)]
        if self._is_first(level):
            print(f"{text}; its threads:", file=sys.stderr, flush=True)
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
        try:
            with stacks.open("w", encoding="utf-8") as file:
                print(text, file=file, flush=True)
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            print(f"cannot write {stacks}: {error}", file=sys.stderr)

        time.sleep(APART)
        self.heartbeat.end(f"{reason} {latest.place()}")
        _end_process()

    def _end_after_others(self) -> None:
        """Report who failed and end this process, unless the main thread, which may hang in a collective, does so."""
        self.heartbeat.stay_alive(self.failed)  # so that other hosts learn of it
        self._found.set()

        # A rank that ended with an error has reported it, and all ranks may be about to meet the same error.
        if not self._asked and not all(reason.startswith("ended: ") for reason in self.failed.values()):
            self._report()
        time.sleep(GRACE)
        self._report()
        self.heartbeat.end(None)  # the error is another rank's
        _end_process()

    def _report(self) -> None:
        """Print who failed, once, from the lowest rank of this host that is well."""
        with self._reporting:
            if not self._reported and self._is_first([rank for rank in self.processes if rank not in self.failed]):
                lines = [f"error: {line}\n" for line in self._lines()]
                text = "".join(lines) + "the run ends; the same command resumes from its last checkpoint"
                print(text, file=sys.stderr, flush=True)
            self._reported = True

    def _lines(self) -> list[str]:
        beats = {**self.beats, self.heartbeat.process.rank: self.heartbeat.latest}
        return [describe(self.processes[rank], reason, beats.get(rank)) for rank, reason in self.failed.items()]

    def _is_first(self, ranks: Iterable[int]) -> bool:
        """Whether no lower one of `ranks` on this host reports, or has reported before it ended."""
        for rank in ranks:
            process = self.processes[rank]
            if rank >= self.heartbeat.process.rank or not self.heartbeat.process.sees(process):
                continue
            self._read(process)
            beat = self.beats.get(rank)
            if beat.lost if beat is not None and beat.doing == "ended" else process.is_running():
                return False
        return True


def describe(process: Process, reason: str, beat: Beat | None) -> str:
    """A rank, why it counts as failed, and its last known place, in a line."""
    if beat is None:
        return f"{process} {reason}; it never recorded what it was doing"
    if beat.error is not None:
        return f"{process} {reason}"
    return f"{process} {reason}; last heard of {beat.place()}"


def is_behind(beat: Beat, other: Beat) -> bool:
    """Whether the first of two ranks has made less progress; one that ended is behind nobody."""
    if beat.doing == "ended":
        return False
    return (beat.step, ORDER.index(beat.doing)) < (other.step, ORDER.index(other.doing))


def _end_process() -> None:
    """End without exit handlers, which would wait for the main thread."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)
