"""The command itself: what its rows say of checks that hold, break, die and hang, and its exit status."""

import importlib
import inspect
import json
import os
import sys
import time
from typing import Any

import pytest
import torch

from tests.gpu import check as check_gpu
from tests.gpu.check import CHECKS, chosen, line, main
from tests.gpu.checks.outcome import CannotRun, Finding, Reading, Row
from tests.gpu.checks.runner import DEVICE_IS_LOST, Check, Job, run_checks, run_job
from tests.gpu.checks.sizes import SIZES, Size

HERE = "tests.gpu.tests_of_checks.test_check"


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


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit status of the command line, whose checks run in a process of their own."""
    monkeypatch.setattr(sys, "argv", ["check_gpu", *words])
    with pytest.raises(SystemExit) as ending:
        main()
    return int(ending.value.code or 0)


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
    assert notes["raises"].startswith("RuntimeError: first line last line (tests/gpu/tests_of_checks/test_check.py:")
    assert notes["lacks_a_package"] == "needs package_that_nobody_has"
    assert (notes["cannot_run"], notes["for a GPU"]) == ("needs two hands", "needs a GPU")
    assert rows["beyond"].readings == (Reading("apart", 1.5, 1.0), Reading("times", 3.0, 2.0, ">="))


def test_a_process_whose_gpu_is_lost_ends(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """As any error after it would be laid to the next checks; without one, it goes on."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    job = Job("lost", check("raises"), "cuda", "tiny")
    assert run_job(job, lambda: None).status == "failed" and ended == []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: raises(torch.device("cpu"), SIZES["tiny"]))
    run_job(job, lambda: None)
    run_job(Job("none to lose", check("raises"), "cpu", "tiny"), lambda: None)
    assert ended == [DEVICE_IS_LOST]
    assert "RuntimeError: first line" in capfd.readouterr().err


def test_a_failed_check_is_told_and_ends_in_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = {"good": check("holds"), "slow": check("holds", arguments={"value": 2.0}, goal=True)}
    monkeypatch.setattr(check_gpu, "CHECKS", checks)
    assert command(monkeypatch, "--device", "cpu") == 0
    output = capsys.readouterr().out
    assert "good  passed" in output and "slow  missed" in output and "1 passed, 1 missed in" in output
    monkeypatch.setattr(check_gpu, "CHECKS", {**checks, "bad/a": check("raises"), "bad/b": check("is_not_a_number")})
    assert command(monkeypatch, "--device", "cpu", "--json") == 1
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["status"] for name, row in found.items()} == {
        "good": "passed",
        "slow": "missed",
        "bad/a": "failed",
        "bad/b": "failed",
    }
    assert found["good"]["measured"] == {"apart": 0.5, "times": 3.0}
    assert found["good"]["bound"] == {"apart": "<= 1", "times": ">= 2"}
    assert found["bad/b"]["measured"] == {"apart": "nan"}
    assert command(monkeypatch, "--device", "cpu", "--only", "good") == 0


def test_all_but_the_compiled_checks_pass_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What only a GPU can do is skipped; the compiler has tests of its own."""
    groups = [name for name in CHECKS if not name.startswith("compile/")]
    status = command(monkeypatch, "--device", "cpu", "--json", "--only", *groups)
    output = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(output.out)}
    assert list(rows) == groups
    skipped = {name for name, row in rows.items() if row["status"] == "skipped"}
    assert {name: row["note"] for name, row in rows.items() if row["status"] not in ("passed", "skipped")} == {}
    assert status == 0, output.err
    assert skipped == {
        *("autocast/fp16", "attention/fp16", "step/fp16", "memory/96 frames"),
        *(name for name in groups if name.startswith("speed/")),
    }
    assert {rows[name]["note"] for name in skipped} == {"needs a GPU"}
    assert rows["device"]["note"] == "CPU: fp32"
    assert rows["collectives"]["note"] == "gloo, processes: 2"


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_is_a_function_that_takes_its_arguments(name: str) -> None:
    """Those too that only a GPU can do."""
    module, _, function = CHECKS[name].function.partition(":")
    found = getattr(importlib.import_module(module), function)
    inspect.signature(found).bind(torch.device("cpu"), SIZES["tiny"], **CHECKS[name].arguments)


def test_names_choose_checks_and_unknown_ones_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = chosen(["attention", "cpu/joint tome"], "cpu", None)
    assert [job.name for job in jobs] == ["cpu/joint tome", "attention/fp32", "attention/bf16", "attention/fp16"]
    assert {job.size for job in jobs} == {"tiny"}
    assert [job.name for job in chosen(None, "cpu", "full")] == list(CHECKS)
    assert command(monkeypatch, "--device", "cpu", "--only", "atention") == 2
    assert "no check's name begins with 'atention'; there are device, cpu/divided none" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command(monkeypatch) == 2
    assert "--device cuda: this machine has no GPU that PyTorch can use" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert {job.size for job in chosen(None, "cuda", None)} == {"full"}


def test_a_line_has_what_was_measured_with_its_bound() -> None:
    row = Row("a", "failed", (Reading("tokens", 0.00123456, 1e-4), Reading("times", 1.5, 2.0, ">=")), "why", 1.25)
    assert line(row, 4) == "a     failed      1.2 s  tokens 0.00123 (<= 0.0001), times 1.5 (>= 2); why"
