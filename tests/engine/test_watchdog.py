"""Real processes that die, fall silent or stand still: the others end, and one of them on each host says why."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE

import pytest

from engine.heartbeat import Beat, Heartbeat, encode, heartbeat_file, this_process
from engine.watchdog import Watchdog, is_behind
from tests.engine.watched_group import KILLED_AT, LAST_STEP

ROOT = Path(__file__).resolve().parents[2]
LAST = 3  # step, of those that count to it


@dataclass(frozen=True)
class Ended:
    code: int
    error: str  # the rank's stderr


def start(folder: Path, faults: list[str], hosts: str = "aaa", stall_timeout: float = 50.0) -> list[subprocess.Popen]:
    """A process for each of `faults`, on these hosts, all past their start."""
    ranks = []
    for rank, fault in enumerate(faults):
        settings = {"folder": str(folder), "rank": rank, "host": hosts[rank], "last_step": LAST, "fault": fault}
        command = [sys.executable, "-m", "tests.engine.watched_rank"]
        command.append(json.dumps({**settings, "stall_timeout": stall_timeout}))
        pipes = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
        ranks.append(subprocess.Popen(command, cwd=ROOT, text=True, **pipes))
    processes = [json.loads(rank.stdout.readline()) for rank in ranks]
    for rank in ranks:
        rank.stdin.write(json.dumps(processes) + "\n")
        rank.stdin.flush()
    return ranks


def wait(ranks: list[subprocess.Popen]) -> list[Ended]:
    """How each ended; those that are stopped, or wait for ever, end when the first has."""
    try:
        ranks[0].wait(timeout=100)
        for rank in ranks[1:]:
            if not is_stopped(rank):
                rank.wait(timeout=100)
    finally:
        for rank in ranks:
            rank.kill()
        ends = [Ended(error=rank.communicate()[1], code=rank.returncode) for rank in ranks]
    return ends


def is_stopped(rank: subprocess.Popen) -> bool:
    return rank.poll() is None and Path(f"/proc/{rank.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def said_about(rank: int, what: str) -> str:
    """A pattern of the line about a rank that stood at step 3, training, with the samples of its batch."""
    names = ", ".join(rf"{name}_{rank}_3\.mp4" for name in "abcdefgh")
    return rf"rank {rank} \(process \d+ on \w+\) {what}; last heard of at step 3, training on {names} and 2 more\n"


@pytest.mark.parametrize(("dead", "speaker"), [(1, 0), (0, 1)])
def test_a_killed_rank_ends_the_others_and_the_first_of_them_names_it(dead: int, speaker: int, tmp_path: Path) -> None:
    ends = wait(start(tmp_path, ["is killed" if rank == dead else "waits for ever" for rank in range(3)]))
    assert [end.code for end in ends] == [-signal.SIGKILL if rank == dead else 1 for rank in range(3)]
    assert re.match("error: " + said_about(dead, "is gone"), ends[speaker].error)
    assert [bool(end.error) for end in ends] == [rank == speaker for rank in range(3)]
    assert "the same command resumes" in ends[speaker].error


def test_other_hosts_learn_from_a_ranks_own_host_that_it_is_gone(tmp_path: Path) -> None:
    ends = wait(start(tmp_path, ["waits for ever", "is killed", "waits for ever"], hosts="abb"))
    for rank in (0, 2):  # one on each host
        assert ends[rank].code == 1 and re.match("error: " + said_about(1, "is gone"), ends[rank].error)


def test_a_rank_of_another_host_that_falls_silent_is_gone(tmp_path: Path) -> None:
    first, silent = wait(start(tmp_path, ["waits for ever", "is stopped"], hosts="ab"))
    assert first.code == 1 and re.match("error: " + said_about(1, r"has been silent for \d+ s"), first.error)
    assert silent == Ended(-signal.SIGKILL, "")


def test_a_rank_that_fails_and_does_not_come_to_its_end_is_quoted(tmp_path: Path) -> None:
    ranks = start(tmp_path, ["waits for ever", "fails", "waits for ever"])
    try:
        assert ranks[0].wait(timeout=100) == ranks[2].wait(timeout=100) == 1
    finally:
        for rank in ranks:
            rank.kill()
    first, _, last = wait(ranks)
    assert re.match(r"error: rank 1 \(process \d+ on a\) ended: the reason\n", first.error) and last.error == ""


def test_a_rank_that_stalls_names_itself_and_leaves_its_stack(tmp_path: Path) -> None:
    waiting, still = wait(start(tmp_path, ["waits for ever", "loads for ever"], stall_timeout=1.0))
    names = ", ".join(rf"before_{name}_1_3\.mp4" for name in "abcdefgh")
    expected = (
        r"error: rank 1 \(process \d+ on a\) has made no progress for \d+ s; last heard of at step 3, "
        rf"loading after {names} and 2 more"
    )
    assert still.code == 1 and re.match(expected, still.error) and "in wait_in_a_collective" in still.error
    stacks = (tmp_path / "heartbeats" / "rank_00001.stack.txt").read_text()
    assert re.match(expected, stacks) and "in wait_in_a_collective" in stacks
    # The one that waits for it is not to blame, and does not blame itself.
    assert waiting.code == 1 and not (tmp_path / "heartbeats" / "rank_00000.stack.txt").exists()
    assert re.match(r"error: rank 1 .* ended: has made no progress for \d+ s at step 3, loading after", waiting.error)


def test_of_ranks_that_stall_together_one_reports(tmp_path: Path) -> None:
    ends = wait(start(tmp_path, ["waits for ever", "waits for ever"], stall_timeout=1.0))
    assert [end.code for end in ends] == [1, 1]
    assert re.match("error: rank 0 .* has made no progress", ends[0].error) and ends[1].error == ""
    for rank in (0, 1):
        stacks = (tmp_path / "heartbeats" / f"rank_0000{rank}.stack.txt").read_text()
        assert f"a_{rank}_3.mp4" in stacks and "in wait_in_a_collective" in stacks


def test_evaluation_has_no_limit_for_who_evaluates_and_who_waits_for_it(tmp_path: Path) -> None:
    assert wait(start(tmp_path, ["waits", "evaluates"], stall_timeout=0.5)) == [Ended(0, ""), Ended(0, "")]


def test_a_process_alone_is_watched_too(tmp_path: Path) -> None:
    assert wait(start(tmp_path, ["evaluates"], stall_timeout=0.5)) == [Ended(0, "")]
    (still,) = wait(start(tmp_path, ["loads for ever"], stall_timeout=0.5))
    assert still.code == 1 and re.match("error: rank 0 .* has made no progress", still.error)


def test_nobody_is_mistaken_for_the_dead_of_an_earlier_start(tmp_path: Path) -> None:
    folder = tmp_path / "heartbeats"
    folder.mkdir()
    ranks = start(tmp_path, ["waits", "waits"])
    earlier = replace(this_process(2), pid=2**22 + 1, host="a")
    for rank in (1, 2):
        # Rank 1's own file is gone: a process that lingers has written over it.
        beat = Beat(replace(earlier, rank=rank), 9, "ended", error="of an earlier start", lost={0: "is gone"})
        heartbeat_file(folder, rank).unlink(missing_ok=True)
        heartbeat_file(folder, rank).write_bytes(encode(beat))
    assert wait(ranks) == [Ended(0, ""), Ended(0, "")]


def test_files_of_ranks_that_are_no_more_are_removed(tmp_path: Path) -> None:
    for rank in range(3):
        Heartbeat(tmp_path / "heartbeats", rank)
    heartbeat = Heartbeat(tmp_path / "heartbeats", 0)
    with Watchdog(heartbeat, [heartbeat.process, replace(heartbeat.process, rank=1)], stall_timeout=9.0):
        assert sorted(path.name for path in heartbeat.folder.iterdir()) == ["rank_00000.json", "rank_00001.json"]


def test_processes_that_are_suspended_together_continue_together(tmp_path: Path) -> None:
    """As Slurm does to make room for another job."""
    ranks = start(tmp_path, ["waits for ever", "waits for ever"], hosts="ab", stall_timeout=3.5)
    try:
        time.sleep(0.5)
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for rank in ranks:
                rank.send_signal(number)
            time.sleep(4.5 if number == signal.SIGSTOP else 1.0)
        assert [rank.poll() for rank in ranks] == [None, None]
    finally:
        ends = [(rank.kill(), rank.communicate()[1])[1] for rank in ranks]
    assert ends == ["", ""]


def test_who_is_behind() -> None:
    places = [(3, "starting"), (3, "saving"), (3, "evaluating"), (3, "loading"), (3, "training"), (4, "saving")]
    beats = [Beat(this_process(0), step, doing) for step, doing in places]
    for number, beat in enumerate(beats):
        assert [is_behind(beat, other) for other in beats] == [number < other for other in range(len(beats))]
        assert not is_behind(replace(beat, step=0, doing="ended"), beat)


def test_torchrun_starts_the_run_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["--max-restarts", "1", "-m", "tests.engine.watched_group", str(tmp_path)]
    # Without it the second group meets in the store of the first, and calls at addresses where nobody is.
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    torchrun = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=PIPE, stderr=PIPE)
    try:
        _, errors = torchrun.communicate(timeout=200)
    finally:
        torchrun.terminate()  # it ends its workers
        torchrun.wait()
    assert torchrun.returncode == 0, errors
    expected = rf"error: rank 1 \(process \d+ on .*\) is gone; last heard of at step {KILLED_AT}, "
    assert len(re.findall(expected + rf"training on video_1_{KILLED_AT}\.mp4\n", errors)) == 1
    for rank in (0, 1):
        said_last = json.loads(heartbeat_file(tmp_path / "heartbeats", rank).read_text())
        assert (said_last["step"], said_last["doing"], said_last["error"]) == (LAST_STEP, "ended", None)
