"""Tasks are claimed once, those of the dead again, and none is lost; by this process's clock alone."""

import os
import signal
import time
from pathlib import Path

import pytest

from engine import claims as module
from engine.claims import Claim, Claims, publish
from tests.forked import forking

TASKS = [f"{number:03d}" for number in range(40)]
PATIENCE = 60.0


class Clock:
    """A monotonic clock that only moves when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def dead(folder: Path, task: str) -> Claims:
    """A process that has claimed a task and then died."""
    claims = Claims(folder, PATIENCE)
    with claims.alive():
        assert claims.take([task]) == Claim(task, 0)
    return claims


def test_each_task_is_claimed_once(tmp_path: Path) -> None:
    first, second = Claims(tmp_path, PATIENCE), Claims(tmp_path, PATIENCE)
    with first.alive(), second.alive():
        assert first.take(["a", "b"]) == Claim("a", 0)
        assert second.take(["a", "b"]) == Claim("b", 0)
        assert first.take(["a", "b"]) is None and second.take(["a", "b"]) is None

        first.finish("a", {"x": 1})
        assert second.done() == {"a"} and second.result("a") == {"x": 1}
        assert second.take(["a"]) is None


def test_a_claim_is_stale_when_its_number_has_not_moved(tmp_path: Path, clock: Clock) -> None:
    dead(tmp_path, "a")
    observer = Claims(tmp_path, PATIENCE)
    with observer.alive():
        for seconds in (0, 10, 20, 20, 9):
            clock.now += seconds
            assert observer.take(["a"]) is None
        clock.now += 1
        assert observer.take(["a"]) == Claim("a", 1)
        # Its own claims are never stale.
        for _ in range(10):
            observer._beat()
            clock.now += 20
            assert observer.take(["a"]) is None


def test_an_owner_that_lives_keeps_its_claim(tmp_path: Path, clock: Clock) -> None:
    owner, observer = Claims(tmp_path, PATIENCE), Claims(tmp_path, PATIENCE)
    with owner.alive(), observer.alive():
        claim = owner.take(["a"])
        for _ in range(20):
            owner._beat()
            clock.now += 20
            assert observer.take(["a"]) is None
        assert claim is not None and owner.is_ours(claim)

        # It falls silent and is taken for dead; when it wakes up, it can see that.
        for _ in range(2):
            clock.now += 20
            assert observer.take(["a"]) is None
        clock.now += 20
        assert observer.take(["a"]) == Claim("a", 1) and not owner.is_ours(claim)


def test_an_observer_that_slept_takes_nobody_for_dead_at_once(tmp_path: Path, clock: Clock) -> None:
    owner, observer = Claims(tmp_path, PATIENCE), Claims(tmp_path, PATIENCE)
    with owner.alive(), observer.alive():
        owner.take(["a"])
        assert observer.take(["a"]) is None
        clock.now += 100 * PATIENCE  # the whole job was suspended
        assert observer.take(["a"]) is None
        owner._beat()
        clock.now += 20
        assert observer.take(["a"]) is None


def test_a_claim_without_a_name_is_taken_over(tmp_path: Path, clock: Clock) -> None:
    observer = Claims(tmp_path, PATIENCE)
    with observer.alive():
        (tmp_path / "claims" / "a.0").touch()
        assert observer.take(["a"]) is None
        for _ in range(3):
            assert observer.take(["a"]) is None
            clock.now += 20
        assert observer.take(["a"]) == Claim("a", 1)


def test_what_is_published_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    publish(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        publish(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def work(folder: Path, log: Path) -> None:
    """Do tasks until all are done; note each in a log of its own."""
    claims = Claims(folder, 0.6)
    with claims.alive():
        while not set(TASKS) <= claims.done():
            claim = claims.take(TASKS)
            if claim is not None:
                time.sleep(0.01)
                with log.open("a") as file:
                    file.write(f"{claim.task} {os.getpid()}\n")
                claims.finish(claim.task, claim.attempt)
            else:
                time.sleep(0.05)


def test_processes_that_are_killed_leave_nothing_undone(tmp_path: Path) -> None:
    folder, log = tmp_path / "job", tmp_path / "log"
    log.touch()
    workers = [forking().Process(target=work, args=(folder, log)) for _ in range(4)]
    for worker in workers:
        worker.start()

    # Kill two of them in the middle of their work, and stop a third one for longer than it takes to count as dead.
    deadline = time.monotonic() + 60
    while len(log.read_text().splitlines()) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    pids = [worker.pid for worker in workers]
    os.kill(pids[0], signal.SIGKILL)
    os.kill(pids[1], signal.SIGKILL)
    os.kill(pids[2], signal.SIGSTOP)
    workers[3].join(60)
    os.kill(pids[2], signal.SIGCONT)
    for worker in workers:
        worker.join(60)

    assert [worker.exitcode for worker in workers] == [-9, -9, 0, 0]
    done = [line.split()[0] for line in log.read_text().splitlines()]
    assert set(done) == set(TASKS)
    # Only what a process had in its hands may have been done twice.
    assert len(done) <= len(TASKS) + 3
