"""Processes that one command starts: whom a signal reaches, and what their statuses come to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.children import run_child
from engine.interruption import ENDED, SAVED
from engine.launch import status_of
from tests.engine.processes import environment
from tests.forked import ROOT

LAUNCH = (sys.executable, "-m", "engine.launch", "--nproc_per_node=2")


def started(*words: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """A command in a group of its own, as a shell starts it in a terminal."""
    return subprocess.Popen(words, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)


def wait_for(condition: Path, process: subprocess.Popen[str]) -> None:
    while not condition.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_ctrl_c_saves_a_run_of_two_and_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = ("tests/engine/stub_run.py", str(folder), "--seconds", "0.05", "--epochs", "500", "--save-every", "1000")
    process = started(*LAUNCH, *command, env=environment(PYTHONPATH=str(ROOT)))
    wait_for(folder / "metrics.jsonl", process)
    press_ctrl_c(process)
    _, output = process.communicate(timeout=100)
    assert process.returncode == SAVED, output
    assert output.count("told to stop by SIGINT") == 1 and "Traceback" not in output and "Warning" not in output
    assert (folder / "checkpoint_last" / "state.json").exists()


def test_a_second_ctrl_c_ends_all_at_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        "from engine.interruption import Interruption\n"
        "with Interruption() as interruption, interruption.deferred():\n"
        f"    Path({str(tmp_path)!r}, 'ready' + os.environ['RANK']).touch()\n"
        "    while interruption.signal is None:\n"
        "        time.sleep(0.01)\n"
        f"    Path({str(tmp_path)!r}, 'told' + os.environ['RANK']).touch()\n"
        "    time.sleep(600)\n"
    )
    process = started(*LAUNCH, str(script), env=environment(PYTHONPATH=str(ROOT)))
    for mark in ("ready", "told"):
        for rank in range(2):
            wait_for(tmp_path / f"{mark}{rank}", process)
        press_ctrl_c(process)
    _, output = process.communicate(timeout=100)
    assert (process.returncode, output) == (ENDED, "\nfinishing the step and saving; a second Ctrl-C ends at once\n")


def test_a_rank_that_fails_before_there_is_a_group_ends_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine import launch

    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\n"
        f"open({str(tmp_path)!r} + '/pid' + os.environ['RANK'], 'w').write(str(os.getpid()))\n"
        "sys.exit(2) if os.environ['RANK'] == '1' else time.sleep(600)\n"
    )
    monkeypatch.setattr(launch, "GRACE", 0.5)
    assert launch.main(["--nproc_per_node=2", str(script)]) == 2
    pid = (tmp_path / "pid0").read_text() if (tmp_path / "pid0").exists() else "none"
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([0, 0], 0),
        ([SAVED, SAVED], SAVED),
        ([ENDED, -signal.SIGINT], ENDED),
        ([1, 2], 2),
        ([1, SAVED], 1),
        ([-signal.SIGKILL, 1], 1),
        ([-signal.SIGKILL, 0], 1),
    ],
)
def test_one_status_stands_for_all(statuses: list[int], expected: int) -> None:
    assert status_of(statuses) == expected


def test_a_child_hears_ctrl_c_once_and_has_the_time_to_end(tmp_path: Path) -> None:
    """`subprocess.run` would kill it after a quarter of a second."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, time\n"
        "heard = []\n"
        "signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "time.sleep(1)\n"
        f"open({str(tmp_path / 'heard')!r}, 'w').write(str(len(heard)))\n"
    )
    with pytest.raises(KeyboardInterrupt):
        run_child((sys.executable, "-S", str(script)))
    assert (tmp_path / "heard").read_text() == "1"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert run_child((sys.executable, "-S", "-c", "raise SystemExit(3)")) == 3
