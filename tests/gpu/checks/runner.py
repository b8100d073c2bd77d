"""Runs checks one after the other in a process of its own, so that none takes the others along."""

import gc
import importlib
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from scripts.parts.worker_pool import Beat, Failure, one_line, run_each
from tests.gpu.checks.outcome import CannotRun, Finding, Row, Status
from tests.gpu.checks.sizes import SIZES

ROOT = Path(__file__).parents[3]
SECONDS_A_CHECK = 300.0
DEVICE_IS_LOST = 70
"""Exit status of a process whose GPU answers nothing more after an error."""


@dataclass(frozen=True)
class Check:
    """How one row of the table is made.

    Attributes:
        function: `module:function`; `function(device, size, **arguments)` returns a `Finding`.
        needs_gpu: it means nothing on a CPU.
        goal: its bounds are goals of speed: one that is not kept is missed, which is no failure.
    """

    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    needs_gpu: bool = False
    goal: bool = False


@dataclass(frozen=True)
class Job:
    """A check with its name, where it runs and with which of `SIZES`."""

    name: str
    check: Check
    device: str
    size: str


def run_checks(jobs: Iterable[Job], seconds: float = SECONDS_A_CHECK) -> Iterator[Row]:
    """The row of each check as it ends. One that hangs, or ends its process, has failed, and the next has a new one."""
    for job, result in run_each(run_job, jobs, workers=1, timeout=seconds):
        yield Row(job.name, "failed", (), result.reason, 0.0) if isinstance(result, Failure) else result


def run_job(job: Job, beat: Beat) -> Row:
    """Do one check in this process, whatever comes of it."""
    beat()
    # Before anything is multiplied, as torch reads it but once; its deterministic algorithms want it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    start = time.monotonic()
    try:
        return _row(job, start)
    except CannotRun as reason:
        return Row(job.name, "skipped", (), str(reason), time.monotonic() - start)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and not _is_ours(error.name):
            return Row(job.name, "skipped", (), f"needs {error.name}", time.monotonic() - start)
        print(f"{job.name}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        _leave_if_device_is_lost(job)
        note = f"{type(error).__name__}: {one_line(error)}{_place(error)}"
        return Row(job.name, "failed", (), note, time.monotonic() - start)
    finally:
        gc.collect()
        if job.device == "cuda":
            torch.cuda.empty_cache()


def _row(job: Job, start: float) -> Row:
    check, device = job.check, torch.device("cuda:0" if job.device == "cuda" else "cpu")
    if check.needs_gpu and device.type == "cpu":
        raise CannotRun("needs a GPU")
    torch.set_float32_matmul_precision("highest")
    module, _, function = check.function.partition(":")
    finding: Finding = getattr(importlib.import_module(module), function)(device, SIZES[job.size], **check.arguments)
    kept = all(reading.holds for reading in finding.readings)
    status: Status = "passed" if kept else "missed" if check.goal else "failed"
    return Row(job.name, status, tuple(finding.readings), finding.note, time.monotonic() - start)


def _is_ours(module: str) -> bool:
    top = module.partition(".")[0]
    return (ROOT / top).is_dir() or (ROOT / f"{top}.py").exists()


def _place(error: Exception) -> str:
    """The innermost line of this repository that the error passed through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(ROOT)]
    return f" ({Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno})" if frames else ""


def _leave_if_device_is_lost(job: Job) -> None:
    """After some errors a process can do nothing more with its GPU: the next check has to have another one."""
    if job.device != "cuda":
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        os._exit(DEVICE_IS_LOST)
