"""The most memory that a real step takes on a CPU, as torch's allocator reports it to the profiler."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch.profiler import ProfilerActivity, profile

from engine.step import TrainingStep
from scripts.plan_memory.step import batch_of, make_task

CPU = torch.device("cpu")


def peak_of_step(config: Any, rows: int, text_tokens: int, folder: Path) -> int:
    """Bytes at most alive in a step after the first, on top of what is alive before it."""
    torch.manual_seed(0)
    task = make_task(config, made_on=CPU, device=CPU).train()
    step = TrainingStep(cast(Any, task), config, CPU)
    batch = batch_of(config, rows, text_tokens)

    def train(number: int) -> None:
        batches = [dict(batch) for _ in range(config.train.accumulate)]
        task.begin_step(number, 0.0, batches)
        step(batches)

    train(0)
    return peak_of(lambda: train(1), folder)


def peak_of(call: Callable[[], object], folder: Path) -> int:
    """Bytes at most alive during a call, on top of what is alive before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]"]
    alive = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        alive += change
        peak = max(peak, alive)
    assert peak > 0
    return peak
