"""The process of one variant of a benchmark: builds it, then runs it once for every line on stdin.

Started by `benchmarks/measure.py`. Answers with lines of JSON on stdout; whatever else the variant prints
goes to stderr.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.measure import Call, Variant
from benchmarks.settings import Settings

Work = Callable[[], float | None]


def build(variant: Variant, settings: Settings) -> Work:
    """Import the variant's function and have it make the callable that is measured."""
    module, _, function = variant.build.partition(":")
    return getattr(importlib.import_module(module), function)(settings, **variant.arguments)


def timed(work: Work, on_gpu: bool) -> float:
    """The seconds of one call: what it returns, or else what the clock says, with the GPU's work done."""
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    seconds = work()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start if seconds is None else float(seconds)


class CpuMeter:
    """Calls work on a CPU and reads the high-water mark of this process' resident memory."""

    def __init__(self) -> None:
        self.before = self._resident("VmRSS")

    def call(self, work: Work) -> Call:
        """One timed call."""
        can_tell = self.before is not None and self._forget_peak()
        seconds = timed(work, on_gpu=False)
        peak = self._resident("VmHWM") if can_tell else None
        return Call(seconds, None if peak is None or self.before is None else max(0, peak - self.before))

    @staticmethod
    def _resident(field: str) -> int | None:
        """Bytes as Linux tells them; None on other systems."""
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)

    @staticmethod
    def _forget_peak() -> bool:
        """Set the high-water mark to what is resident now; whether that can be done."""
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not Linux, or a container that does not allow it
            return False
        return True


class GpuMeter:
    """Calls work on a GPU and reads the most that PyTorch had allocated on it."""

    def __init__(self) -> None:
        torch.cuda.synchronize()
        self.before = torch.cuda.memory_allocated()

    def call(self, work: Work) -> Call:
        """One timed call. All processes share one GPU: none keeps memory it does not use between its turns.

        So that a call does not pay for getting it back, each timed one follows one that is not.
        """
        timed(work, on_gpu=True)
        torch.cuda.reset_peak_memory_stats()
        seconds = timed(work, on_gpu=True)
        peak = torch.cuda.max_memory_allocated() - self.before
        torch.cuda.empty_cache()
        return Call(seconds, peak)


def main() -> None:
    """Answer the parent until it ends this process."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    request = json.loads(sys.stdin.readline())
    settings = Settings(**{**request["settings"], "overrides": tuple(request["settings"]["overrides"])})
    torch.set_num_threads(settings.threads)
    work = build(Variant(**request["variant"]), settings)
    meter = GpuMeter() if settings.device == "cuda" else CpuMeter()
    print(json.dumps("built"), file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(meter.call(work)._asdict()), file=answers, flush=True)


if __name__ == "__main__":
    main()
