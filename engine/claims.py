"""Tasks that any number of processes, on any number of hosts, share through nothing but a folder.

claims/TASK.ATTEMPT   created by one process alone (O_EXCL); holds that process's name
workers/NAME          a number that grows as long as that process lives
done/TASK             what came of the task, as JSON

A claim is stale when its owner's number has not moved for `stale_after` seconds by the observer's own clock; the next
attempt can then be claimed. So clocks of two hosts are never compared, and no process is judged by its id. A process
that was only suspended may still finish a task that another took over: doing a task twice must be harmless.

All this needs is that creating a file and renaming one are atomic, as they are on NFS; there are no locks.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

CLAIMS, WORKERS, DONE = "claims", "workers", "done"
BEATS = 6
"""How often a process beats in the time after which it counts as dead."""
LOOKS = 3
"""How often a claim must be looked at before it is stale: a host that was suspended has missed beats, not seen none."""


class Claim(NamedTuple):
    """A task that is this process's own; `attempt` is how many processes have claimed it before."""

    task: str
    attempt: int


@dataclass
class _Watch:
    """What was last seen of a claim: its owner with its number, when, and for how long it has not moved."""

    pulse: tuple[str, str]
    looked: float
    unchanged: float = 0.0


class Claims:
    """One process's view of the tasks in `folder`; use it within `alive`.

    Args:
        stale_after: seconds without a sign of life after which a process counts as dead; the same for all processes.
    """

    def __init__(self, folder: Path, stale_after: float) -> None:
        self.folder, self.stale_after = folder, stale_after
        # The host's name is for people; what counts is that no other process ever has the same one.
        self.worker = f"{socket.gethostname()}-{uuid.uuid4().hex}"
        self._watched: dict[Claim, _Watch] = {}
        self._beats = 0

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Give signs of life until the end of the context."""
        for name in (CLAIMS, WORKERS, DONE):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._beat()

        stopping = threading.Event()
        heart = threading.Thread(target=self._beat_until, args=(stopping,), daemon=True, name="claims")
        heart.start()
        try:
            yield
        finally:
            stopping.set()
            heart.join()
            (self.folder / WORKERS / self.worker).unlink(missing_ok=True)

    def take(self, tasks: Sequence[str]) -> Claim | None:
        """Claim the first of `tasks` that nobody has, or one whose owner is dead; None if there is none now.

        A dead owner is noticed by calling this again and again.
        """
        done, attempts = self.done(), self._attempts()
        left = [task for task in tasks if task not in done]
        for task in left:
            if task not in attempts and self._create(Claim(task, 0)):
                return Claim(task, 0)

        # All that is left is claimed. We may find that an owner has died.
        for task in left:
            claim = Claim(task, attempts.get(task, 0))
            if self._is_stale(claim):
                following = Claim(task, claim.attempt + 1)
                if self._create(following):
                    logger.warning("%s: its process gives no sign of life, so this one takes it over", task)
                    return following
        return None

    def is_ours(self, claim: Claim) -> bool:
        """Whether nobody has taken the task over."""
        return self._attempts().get(claim.task) == claim.attempt

    def finish(self, task: str, result: Any = None) -> None:
        """Note that a task is done and what came of it, JSON."""
        publish(self.folder / DONE / task, json.dumps(result))

    def done(self) -> set[str]:
        """The tasks that are done."""
        return {name for name in os.listdir(self.folder / DONE) if not name.startswith(".")}

    def result(self, task: str) -> Any:
        """What came of a task that is done."""
        return json.loads((self.folder / DONE / task).read_text(encoding="utf-8"))

    def _attempts(self) -> dict[str, int]:
        """The last attempt at each task that was ever claimed."""
        found: dict[str, int] = {}
        for name in os.listdir(self.folder / CLAIMS):
            task, _, attempt = name.rpartition(".")
            found[task] = max(found.get(task, 0), int(attempt))
        return found

    def _create(self, claim: Claim) -> bool:
        """Create the claim's file; False if another process was first."""
        path = self.folder / CLAIMS / f"{claim.task}.{claim.attempt}"
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(self.worker)
        return True

    def _is_stale(self, claim: Claim) -> bool:
        # A claim without a name is that of a process which died between creating the file and writing to it.
        owner = _text(self.folder / CLAIMS / f"{claim.task}.{claim.attempt}")
        pulse = (owner, _text(self.folder / WORKERS / owner) if owner else "")
        now = time.monotonic()

        watch = self._watched.get(claim)
        if watch is None or watch.pulse != pulse:
            self._watched[claim] = _Watch(pulse, now)
            return False

        # However long this process has slept, one look counts for a part of the time alone.
        watch.unchanged += min(now - watch.looked, self.stale_after / LOOKS)
        watch.looked = now
        return watch.unchanged >= self.stale_after

    def _beat(self) -> None:
        self._beats += 1
        publish(self.folder / WORKERS / self.worker, str(self._beats))

    def _beat_until(self, stopping: threading.Event) -> None:
        while not stopping.wait(self.stale_after / BEATS):
            try:
                self._beat()
            except FileNotFoundError:
                return  # the job is over, and its folder is gone
            except OSError as error:
                logger.warning("%s: cannot give a sign of life (%s); trying again", self.folder, error)


def publish(path: Path, text: str) -> None:
    """Write a file whole or not at all, whoever else writes it at the same time."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
