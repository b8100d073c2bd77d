"""Signals where there is something to save, and where there is not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.interruption import ENDED, SAVED, SIGNALS, Interrupted, Interruption
from engine.run import run
from tests.engine.processes import environment
from tests.engine.stub import STEPS, StubTask, stub_config
from tests.forked import ROOT


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_at_once_except_where_it_is_deferred(number: signal.Signals) -> None:
    before = [signal.getsignal(known) for known in SIGNALS]
    with Interruption() as interruption:
        interruption.raise_if_any()
        with interruption.deferred():
            send(number)
            assert interruption.signal == number.name
        with pytest.raises(Interrupted, match=f"told to stop by {number.name}"):
            interruption.raise_if_any()
    with Interruption(), pytest.raises(Interrupted):
        send(number)
    assert [signal.getsignal(known) for known in SIGNALS] == before


class ToldInEvaluation(StubTask):
    def evaluate(self, final: bool) -> dict[str, Any]:
        send(signal.SIGTERM)
        return super().evaluate(final)


class CtrlCInEvaluation(StubTask):
    def evaluate(self, final: bool) -> dict[str, Any]:
        send(signal.SIGINT)
        return super().evaluate(final)


class ToldAtTheStart(StubTask):
    def __init__(self, config: Any, device: torch.device) -> None:
        super().__init__(config, device)
        send(signal.SIGUSR1)


class ToldInTheSecondStep(StubTask):
    signalled = False

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        if self.step == 1 and not self.signalled:
            self.signalled = True
            send(signal.SIGINT)
        return super().forward(batch)


@pytest.mark.parametrize(
    ("task", "saved"),
    [(ToldAtTheStart, None), (ToldInEvaluation, STEPS), (CtrlCInEvaluation, STEPS), (ToldInTheSecondStep, 2)],
)
def test_what_has_nothing_to_save_ends_at_once(
    tmp_path: Path, task: Callable[..., StubTask], saved: int | None
) -> None:
    with pytest.raises(Interrupted):
        run(stub_config(tmp_path), task)
    state = tmp_path / "checkpoint_last" / "state.json"
    assert (json.loads(state.read_text())["step"] if state.exists() else None) == saved
    beat = json.loads((tmp_path / "heartbeats" / "rank_00000.json").read_text())
    assert (beat["doing"], beat["error"]) == ("ended", None)
    run(stub_config(tmp_path), StubTask)
    assert json.loads(state.read_text())["step"] == 3 * STEPS


def test_ctrl_c_ends_an_evaluation_with_nothing_written(tmp_path: Path) -> None:
    run(stub_config(tmp_path / "trained", train={"max_epochs": 1}), StubTask)
    config = stub_config(tmp_path / "evaluated", checkpoint=str(tmp_path / "trained" / "checkpoint_best"))
    with pytest.raises(KeyboardInterrupt):
        run(config, CtrlCInEvaluation, evaluate_only=True)
    assert not (tmp_path / "evaluated").exists()


def ended_by(code: str) -> tuple[int, str]:
    """The status of `python -c CODE`, and its stderr."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    return done.returncode, done.stderr


def test_a_second_ctrl_c_ends_at_once_what_finishes_its_step() -> None:
    """Also a process that is kept by C code, where Python runs no handler; a data worker's copy leaves both alone."""
    code = (
        "import ctypes, os, signal\n"
        "from engine.interruption import Interruption\n"
        "with Interruption() as interruption, interruption.deferred():\n"
        "    if os.fork() == 0:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        os._exit(interruption.signal is not None)\n"
        "    assert os.wait()[1] == 0\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    ctypes.PyDLL(None).kill(os.getpid(), signal.SIGINT)\n"
        "    raise SystemExit('not ended')\n"
    )
    assert ended_by(code) == (
        -signal.SIGINT,
        "\nfinishing the step and saving; a second Ctrl-C ends at once\n",
    )


@pytest.mark.parametrize(
    "code",
    [
        "from engine.command_line import exit_status\nwith exit_status():\n    os.kill(os.getpid(), signal.SIGINT)\n",
        "import scripts\nos.kill(os.getpid(), signal.SIGINT)\n",  # what is not caught, as while a command imports
    ],
    ids=["an entry script", "a command that imports"],
)
def test_ctrl_c_is_one_line_and_130(code: str) -> None:
    begin = "import os, signal, sys\nsys.argv = ['/somewhere/a_command.py']\n"
    assert ended_by(begin + code) == (ENDED, "a_command: ended by Ctrl-C\n")


def test_a_saved_run_ignores_a_second_signal() -> None:
    """srun ends all tasks when the first has ended: the others, which still clean up, end with the same status."""
    code = (
        "import atexit, os, signal\n"
        "from engine.command_line import exit_status\n"
        "from engine.interruption import Interruption\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
        "with exit_status(), Interruption():\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    assert ended_by(code) == (SAVED, "told to stop by SIGUSR1; the same command resumes it\n")
