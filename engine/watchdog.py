"""A watchdog in every rank: a rank that dies, falls silent or stands still ends the run, and is named.

A process that waits in a collective for one that is gone may wait for ever. The watchdog's thread looks at the other
ranks' processes on this host and at all ranks' heartbeat files, says what it finds, once a host, and ends its process.
Uses no collective and no clock of another host.
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

# Seconds. Looks at processes of this host; files written and read; a file that does not change for so long is of a rank
# that is gone; what the main thread has to end the process in its own words; how long it may wait for a name.
LOOK_EVERY, SHARE_EVERY, SILENCE, GRACE, ASKING = 2.0, 5.0, 40.0, 10.0, 8.0
# Ranks that stand still at the same place find that out this much apart at most, and leave one to speak.
APART = 4.0
# A look that comes so late says that this process was stopped, or its files did not answer: others are not to blame.
LATE = 10.0
# What ranks do at one number of finished steps, in order.
ORDER = ("starting", "saving", "evaluating", "loading", "training", "ended")
# Evaluation and saving have no limit of their own: a large test set takes hours. Their reads have a time limit, and the
# collectives in them that of the process group.
LIMITED = ("loading", "training")


class RankFailed(RuntimeError):
    """Another rank is gone, which has been said on stderr; this one cannot go on alone."""


class Watchdog:
    """Watches over the ranks as long as its context lasts.

    `processes` are those of all ranks, exchanged at the start by a collective: files of other processes, which an
    earlier start left in the folder, do not count. `stall_timeout` is in seconds, of the main thread between two beats
    while it loads or trains.
    """

    def __init__(self, heartbeat: Heartbeat, processes: Sequence[Process], stall_timeout: float) -> None:
        self.heartbeat, self.stall_timeout = heartbeat, stall_timeout
        self.processes = {process.rank: process for process in processes}
        self.others = [process for process in processes if process.rank != heartbeat.process.rank]
        self.beats: dict[int, Beat] = {}
        self.failed: dict[int, str] = {}  # rank: what is known of it
        self._heard = {process.rank: time.monotonic() for process in self.others}
        self._looked = self._excused = self._shared = time.monotonic()
        self._asked, self._spoken = False, False
        self._speaking = threading.Lock()
        self._stop, self._found = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self.heartbeat.process.rank == 0:
            # Of an earlier start with more processes; those of ranks that there are have replaced theirs.
            for path in set(self.heartbeat.folder.glob("rank_?????.json")) - self._files():
                path.unlink(missing_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # With a rank gone, leaving the process group may hang as well: the thread goes on until the process has ended.
        if not self._found.is_set():
            self._stop.set()
            self._thread.join(LOOK_EVERY)

    def who_failed(self) -> list[str]:
        """The ranks that failed, each in a line, for a main thread whose collective broke; waits some seconds for it.

        Empty if all the others are well: then the error is this rank's own.
        """
        self._asked = True
        found = self._found.wait(ASKING)
        self._asked = found
        return self._lines() if found else []

    def explain(self) -> bool:
        """Whether another rank's failure is the reason of a broken collective; says so, once a host."""
        if not self.who_failed():
            return False
        self._speak()
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
        """Find the ranks of this host whose process is gone, though they did not say that they ended."""
        for process in self.others:
            if self.heartbeat.process.sees(process) and not process.is_running():
                self._read(process)
                beat = self.beats.get(process.rank)
                if beat is None or beat.doing != "ended":
                    self.failed[process.rank] = "is gone"

    def _share(self, now: float) -> None:
        """Say that this process runs, and hear what the others say; one that is silent for long is gone."""
        self._shared = now
        self.heartbeat.stay_alive(self.failed)
        for process in self.others:
            if self._read(process):
                self._heard[process.rank] = now
            beat, silence = self.beats.get(process.rank), now - self._heard[process.rank]
            if beat is not None and beat.error is not None:
                self.failed[process.rank] = f"ended: {beat.error}"
            if beat is not None:
                for rank, why in beat.lost.items():
                    self.failed.setdefault(rank, why)
            if silence > SILENCE and (beat is None or beat.doing != "ended"):
                self.failed.setdefault(process.rank, f"has not been heard of for {silence:.0f} s")

    def _read(self, process: Process) -> bool:
        """Whether the file of this rank says something new."""
        beat = read_beat(self.heartbeat.folder, process.rank)
        if beat is None or beat.process != process or beat == self.beats.get(process.rank):
            return False
        self.beats[process.rank] = beat
        return True

    def _has_stalled(self, now: float) -> bool:
        since = max(self.heartbeat.beaten_at, self._excused)
        return self.heartbeat.latest.doing in LIMITED and now - since > self.stall_timeout

    def _end_stalled(self, now: float) -> None:
        """End this process, whose main thread stands still while nobody is behind it; leaves all threads' stacks."""
        latest = self.heartbeat.latest
        why = f"has not come further for {now - self.heartbeat.beaten_at:.0f} s"
        text = f"error: {describe(self.heartbeat.process, why, latest)} ({latest.time})"
        stacks = heartbeat_file(self.heartbeat.folder, latest.process.rank).with_suffix(".stack.txt")
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
        self.heartbeat.end(f"{why} {latest.place()}")
        _end_process()

    def _end_after_others(self) -> None:
        """Say who failed and end this process, if the main thread, which may hang in a collective, does not."""
        self.heartbeat.stay_alive(self.failed)  # other hosts hear of it
        self._found.set()
        # A rank that ended by an error has said so itself, and it may be an error that all ranks come to.
        if not self._asked and not all(why.startswith("ended: ") for why in self.failed.values()):
            self._speak()
        time.sleep(GRACE)
        self._speak()
        self.heartbeat.end(None)  # the error is another's
        _end_process()

    def _speak(self) -> None:
        """Print who failed, once, and on the lowest rank of this host that is well."""
        with self._speaking:
            if not self._spoken and self._is_first([rank for rank in self.processes if rank not in self.failed]):
                lines = [f"error: {line}\n" for line in self._lines()]
                text = "".join(lines) + "the run ends; the same command goes on from its last checkpoint"
                print(text, file=sys.stderr, flush=True)
            self._spoken = True

    def _lines(self) -> list[str]:
        beats = {**self.beats, self.heartbeat.process.rank: self.heartbeat.latest}
        return [describe(self.processes[rank], why, beats.get(rank)) for rank, why in self.failed.items()]

    def _is_first(self, ranks: Iterable[int]) -> bool:
        """Whether no lower one of `ranks` on this host speaks, or has spoken before it ended."""
        for rank in ranks:
            process = self.processes[rank]
            if rank >= self.heartbeat.process.rank or not self.heartbeat.process.sees(process):
                continue
            self._read(process)
            beat = self.beats.get(rank)
            if beat.lost if beat is not None and beat.doing == "ended" else process.is_running():
                return False
        return True


def describe(process: Process, why: str, beat: Beat | None) -> str:
    """A rank and what is known of it, in a line."""
    if beat is None:
        return f"{process} {why}; it never said what it was doing"
    if beat.error is not None:
        return f"{process} {why}"
    return f"{process} {why}; last heard of {beat.place()}"


def is_behind(beat: Beat, other: Beat) -> bool:
    """Whether the first of two ranks has come less far; one that ended is behind nobody."""
    if beat.doing == "ended":
        return False
    return (beat.step, ORDER.index(beat.doing)) < (other.step, ORDER.index(other.doing))


def _end_process() -> None:
    """End without the main thread, which does not answer: exit handlers would wait for it."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)
