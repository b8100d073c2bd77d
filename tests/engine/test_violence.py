"""Runs that are killed, told to stop, or lose a rank: started again, they end as the run that was left alone."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.interruption import SAVED
from tests.engine.processes import Ranks, environment, lines_of
from tests.engine.test_resume import assert_equal_runs, logged
from tests.forked import ROOT

STUB = ("-m", "tests.engine.stub_run")


def left_alone(folder: Path, world_size: int, *arguments: str) -> Path:
    with Ranks(world_size, *STUB, str(folder), *arguments, log=folder.with_suffix(".log")) as ranks:
        assert ranks.wait() == [0] * world_size, ranks.output()
    return folder


@pytest.mark.parametrize("world_size", [1, 2, pytest.param(4, marks=pytest.mark.soak)])
def test_ten_kills_at_random_steps(tmp_path: Path, world_size: int) -> None:
    """All ranks at once, as a node dies, or one of them, and then the others end by themselves and name it."""
    parts, epochs = tmp_path / "parts", ("--epochs", "12")
    whole = left_alone(tmp_path / "whole", world_size, *epochs)
    chance = random.Random(world_size)
    for kill in range(10):
        # A start cuts the log back to its checkpoint, so that some of these come while it starts.
        goal = max(1, lines_of(parts / "metrics.jsonl") + chance.randint(-2, 5))
        victims = [chance.randrange(world_size)] if kill % 3 == 2 else list(range(world_size))
        slowly = (*STUB, str(parts), *epochs, "--seconds", "0.02")
        with Ranks(world_size, *slowly, log=tmp_path / f"{kill}.log") as ranks:
            assert ranks.until(lambda goal=goal: lines_of(parts / "metrics.jsonl") >= goal), ranks.output()
            if len(victims) < world_size:  # before there is a group the launcher is who notices
                assert ranks.until(lambda ranks=ranks: ranks.all_are_training(parts)), ranks.output()
            time.sleep(chance.uniform(0, 0.1))
            ranks.send(signal.SIGKILL, victims)
            statuses = ranks.wait()
        assert statuses == [-signal.SIGKILL if rank in victims else 1 for rank in range(world_size)], ranks.output()
        if len(victims) < world_size:
            assert f"error: rank {victims[0]} (process " in ranks.output() and "Traceback" not in ranks.output()
    left_alone(parts, world_size, *epochs)
    assert_equal_runs(whole, parts)


@pytest.mark.parametrize(
    ("world_size", "number"),
    [(1, signal.SIGTERM), (2, signal.SIGUSR1), (2, signal.SIGINT)],
    ids=["SIGTERM alone", "SIGUSR1 to two", "SIGINT to two"],
)
def test_a_run_told_to_stop_saves_at_once_and_reports_it(
    tmp_path: Path, world_size: int, number: signal.Signals
) -> None:
    whole, parts = left_alone(tmp_path / "whole", world_size), tmp_path / "parts"
    # Seldom saved: what is there afterwards was saved on the signal.
    slowly = (*STUB, str(parts), "--seconds", "0.05", "--save-every", "1000")
    for start, goal in enumerate((2, 6)):
        with Ranks(world_size, *slowly, log=tmp_path / f"{start}.log") as ranks:
            assert ranks.until(lambda goal=goal: lines_of(parts / "metrics.jsonl") >= goal), ranks.output()
            ranks.send(number, list(range(world_size)))
            assert ranks.wait() == [SAVED] * world_size, ranks.output()
            assert f"told to stop by {number.name}" in ranks.output() and "Traceback" not in ranks.output()
        state = json.loads((parts / "checkpoint_last" / "state.json").read_text())
        assert state["step"] == logged(parts)[-1]["step"]
    with Ranks(world_size, *STUB, str(parts), "--save-every", "1000", log=tmp_path / "last.log") as ranks:
        assert ranks.wait() == [0] * world_size, ranks.output()
    assert_equal_runs(whole, parts)


def test_torchrun_starts_what_was_killed_again(tmp_path: Path) -> None:
    whole, parts = left_alone(tmp_path / "whole", 2), tmp_path / "parts"
    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--max-restarts=1", "--monitor-interval=0.1")
    command = (sys.executable, *torchrun, "--standalone", *STUB, str(parts), "--kill", "1", "7")
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "parts.killed").exists() and "resuming from step 6 of 24" in done.stderr
    assert_equal_runs(whole, parts)


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    with Ranks(1, *STUB, str(parts), "--seconds", "1", log=tmp_path / "first.log") as first:
        assert first.until(lambda: lines_of(parts / "metrics.jsonl") >= 1), first.output()
        with Ranks(1, *STUB, str(parts), log=tmp_path / "second.log") as second:
            assert second.wait() == [2], second.output()
        assert f"error: output_dir: process {first.processes[0].pid} is using {parts}, at step" in second.output()
        assert first.processes[0].poll() is None, first.output()
