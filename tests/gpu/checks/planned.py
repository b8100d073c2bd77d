"""The memory of a step as `scripts/plan_memory/__main__.py` counts it, against what the GPU's allocator says."""

from dataclasses import replace
from typing import Any

import torch

from configs.aggregation import AggregationConfig
from configs.optim import OptimConfig
from configs.schema import DataConfig, PretrainConfig, RunConfig
from configs.training import TrainConfig
from engine.precision import resolve_precision
from engine.step import TrainingStep
from scripts.plan_memory.step import batch_of, count, make_task
from tests.gpu.checks.models import Checkpointing
from tests.gpu.checks.outcome import Finding, Reading, not_finite
from tests.gpu.checks.sizes import Size

STEPS, SHARE = 2, 0.15


def memory(device: torch.device, size: Size, frames: int, batch: int, checkpointing: Checkpointing = "none") -> Finding:
    """Steps of TESTA's pre-training against its plan."""
    config = planned_config(size, frames, batch, checkpointing, resolve_precision("auto", device))
    return steps_as_planned(device, config, batch, size.words)


def steps_as_planned(device: torch.device, config: RunConfig, batch: int, words: int) -> Finding:
    """Steps of training, and how far the most that was allocated is from the plan; on a CPU only the steps.

    Texts have as many tokens as `words`.
    """
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    task = make_task(config, made_on=torch.device("cpu"), device=device).to(device).train()
    step = TrainingStep(task, config, device)
    losses: dict[str, torch.Tensor] = {}
    for number in range(STEPS):
        given = batch_of(config, batch, words)
        batches = [{**given, "clip": given["clip"].to(device), "index": given["index"].to(device)}]
        task.begin_step(number, 0.0, batches)
        losses, _ = step(batches)
    readings = [Reading("losses not finite", not_finite(list(losses.values())), 0)]
    counted = replace(config, train=replace(config.train, precision="fp32" if step.precision == "fp32" else "bf16"))
    planned = count(counted, batch, 1, words).total
    if device.type == "cuda":
        allocated = torch.cuda.max_memory_allocated(device) - before
        readings.append(Reading("apart", abs(planned - allocated) / allocated, SHARE))
    return Finding(readings, f"planned {planned / 2**30:.2f} GiB, {config.video.num_frames} frames, batch {batch}")


def planned_config(size: Size, frames: int, batch: int, checkpointing: Checkpointing, precision: Any) -> PretrainConfig:
    """Pre-training with all losses, twin and queue, of the model that memory is measured with, with aggregation."""
    leaving = {name: size.leaving[name] for name in ("frames_per_block", "patches_per_block")}
    return PretrainConfig(
        data=DataConfig(root="."),
        optim=OptimConfig(lr=1e-5),
        train=TrainConfig(batch_size=batch, max_epochs=1, precision=precision, activation_checkpointing=checkpointing),
        model=size.whole,
        video=replace(size.video, num_frames=frames),
        aggregation=AggregationConfig(reducer="geometry", **leaving),  # type: ignore[arg-type]
    )
