"""The runner: rows of checks that hold, break, die and hang; how `pytest -m gpu` ends; all checks on a CPU."""

import importlib
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu.checks.outcome import CannotRun, Finding, Reading, Row
from tests.gpu.checks.runner import DEVICE_IS_LOST, Check, Job, run_checks, run_job
from tests.gpu.checks.sizes import SIZES, Size
from tests.gpu.checks.table import CHECKS, SYSTEMS, job, line
from tests.gpu.test_on_gpu import settle

ROOT = Path(__file__).parents[2]
HERE = "tests.gpu.test_runner"


def holds(device: torch.device, size: Size, value: float = 0.5) -> Finding:
    return Finding([Reading("apart", value, 1.0), Reading("times", 3.0, 2.0, ">=")], f"on {device}")


def is_not_a_number(device: torch.device, size: Size) -> Finding:
    return Finding([Reading("apart", float("nan"), 1.0)])


def raises(device: torch.device, size: Size) -> Finding:
    raise RuntimeError("first line\nlast line")


def cannot_run(device: torch.device, size: Size) -> Finding:
    raise CannotRun("needs two hands")


def lacks_a_package(device: torch.device, size: Size) -> Finding:
    import package_that_nobody_has  # noqa: F401

    raise AssertionError


def lacks_a_module_of_ours(device: torch.device, size: Size) -> Finding:
    import models.that_is_not_there  # noqa: F401

    raise AssertionError


def dies(device: torch.device, size: Size) -> Finding:
    os._exit(3)


def hangs(device: torch.device, size: Size) -> Finding:
    time.sleep(3600)
    raise AssertionError


def check(function: str, **settings: Any) -> Check:
    return Check(f"{HERE}:{function}", **settings)


def pytest_on(device: str, *words: str) -> tuple[int, str]:
    """Exit status and output of `pytest -m gpu`."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "--gpu-checks-on",
        device,
        *words,
        "tests/gpu/test_on_gpu.py",
    ]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_every_check_has_its_own_end_whatever_the_others_do() -> None:
    names = [
        name for name, value in globals().items() if getattr(value, "__annotations__", {}).get("return") is Finding
    ]
    checks = {name: check(name) for name in names if name not in ("dies", "hangs")}
    # A hang is given up after 4 s, which leaves the others time to import what they need.
    ordered = {
        "before": check("holds"),
        "dies": check("dies"),
        **checks,
        "hangs": check("hangs"),
        "beyond": check("holds", arguments={"value": 1.5}),
        "goal": check("holds", arguments={"value": 1.5}, goal=True),
        "goal kept": check("holds", goal=True),
        "for a GPU": check("dies", needs_gpu=True),
        "nowhere": Check(f"{HERE}:not_there"),
    }
    jobs = [Job(name, one, "cpu", "tiny") for name, one in ordered.items()]
    rows = {row.name: row for row in run_checks(jobs, seconds=4)}
    assert list(rows) == list(ordered)
    assert {name: row.status for name, row in rows.items()} == {
        "before": "passed",
        "dies": "failed",
        "holds": "passed",
        "is_not_a_number": "failed",
        "raises": "failed",
        "cannot_run": "skipped",
        "lacks_a_package": "skipped",
        "lacks_a_module_of_ours": "failed",
        "hangs": "failed",
        "beyond": "failed",
        "goal": "missed",
        "goal kept": "passed",
        "for a GPU": "skipped",
        "nowhere": "failed",
    }
    notes = {name: row.note for name, row in rows.items()}
    assert notes["dies"] == "the process died of it (exit status 3)"
    assert notes["hangs"] == "no progress for 4 s"
    assert notes["raises"].startswith("RuntimeError: first line last line (tests/gpu/test_runner.py:")
    assert notes["lacks_a_package"] == "needs package_that_nobody_has"
    assert (notes["cannot_run"], notes["for a GPU"]) == ("needs two hands", "needs a GPU")
    assert rows["beyond"].readings == (Reading("apart", 1.5, 1.0), Reading("times", 3.0, 2.0, ">="))


def test_a_process_whose_gpu_is_lost_ends(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """As any error after it would be laid to the next checks; without one, it goes on."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    lost = Job("lost", check("raises"), "cuda", "tiny")
    assert run_job(lost, lambda: None).status == "failed" and ended == []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: raises(torch.device("cpu"), SIZES["tiny"]))
    run_job(lost, lambda: None)
    run_job(Job("none to lose", check("raises"), "cpu", "tiny"), lambda: None)
    assert ended == [DEVICE_IS_LOST]
    assert "RuntimeError: first line" in capfd.readouterr().err


def test_a_test_ends_as_its_check_has_ended() -> None:
    reading = Reading("apart", 2.0, 1.0)
    settle(Row("good", "passed", (), "", 1.0))
    with pytest.raises(pytest.fail.Exception, match=r"^apart 2 \(<= 1\); why$"):
        settle(Row("bad", "failed", (reading,), "why", 1.0))
    with pytest.raises(pytest.xfail.Exception, match="a goal of speed was missed: apart 2"):
        settle(Row("slow", "missed", (reading,), "", 1.0))
    with pytest.raises(pytest.skip.Exception, match="needs two hands"):
        settle(Row("lacking", "skipped", (), "needs two hands", 0.0))


def test_rows_are_plain_values() -> None:
    row = Row("bad", "failed", (Reading("apart", float("nan"), 1.0), Reading("times", 3.0, 2.0, ">=")), "", 1.234)
    assert row.as_json() == {
        "name": "bad",
        "status": "failed",
        "measured": {"apart": "nan", "times": 3.0},
        "bound": {"apart": "<= 1", "times": ">= 2"},
        "note": "",
        "seconds": 1.23,
    }


def test_without_a_gpu_every_check_is_skipped_and_one_line_says_so() -> None:
    status, output = pytest_on("cuda")
    assert status == 0
    assert "GPU checks skipped: this machine has no GPU that PyTorch can use" in output
    assert f" {len(CHECKS)} skipped" in output and " passed" not in output


def test_the_chosen_checks_end_with_their_table() -> None:
    status, output = pytest_on("cpu", "-k", "cpu/text or autocast or device")
    assert status == 0
    table = output[output.index("checks on cpu: Python") :].split("\n", 1)[1].split("\n")
    rows = [row for row in table if row]
    words = [row.split()[:2] for row in rows[:4]]
    assert words == [
        ["device", "passed"],
        ["cpu/text", "passed"],
        ["autocast/bf16", "passed"],
        ["autocast/fp16", "skipped"],
    ]
    assert rows[4] == "3 passed, 1 skipped"


@pytest.mark.soak
def test_all_but_the_compiled_checks_pass_on_a_cpu(capfd: pytest.CaptureFixture[str]) -> None:
    """What only a GPU can do is skipped; the compiler has tests of its own."""
    names = [name for name in CHECKS if not name.startswith("compile/")]
    rows = {row.name: row for row in run_checks(job(name, "cpu") for name in names)}
    assert list(rows) == names

    failed = {name: row.note for name, row in rows.items() if row.status not in ("passed", "skipped")}
    assert failed == {}, capfd.readouterr().err
    skipped = {name for name, row in rows.items() if row.status == "skipped"}
    assert skipped == {
        *("autocast/fp16", "attention/fp16", "ragged/fp16", "step/fp16", "features/fp16", "memory/96 frames"),
        *(f"{system}/fp16" for system in SYSTEMS),
        *(name for name in names if name.startswith("speed/")),
    }
    assert {rows[name].note for name in skipped} == {"needs a GPU"}
    assert rows["device"].note == "CPU: fp32"
    assert rows["collectives"].note == "gloo, processes: 2"


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_is_a_function_that_takes_its_arguments(name: str) -> None:
    """Those too that only a GPU can do."""
    module, _, function = CHECKS[name].function.partition(":")
    found = getattr(importlib.import_module(module), function)
    inspect.signature(found).bind(torch.device("cpu"), SIZES["tiny"], **CHECKS[name].arguments)


def test_a_line_has_what_was_measured_with_its_bound() -> None:
    row = Row("a", "failed", (Reading("tokens", 0.00123456, 1e-4), Reading("times", 1.5, 2.0, ">=")), "why", 1.25)
    assert line(row, 4) == "a     failed      1.2 s  tokens 0.00123 (<= 0.0001), times 1.5 (>= 2); why"
