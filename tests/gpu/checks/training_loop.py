"""The training loop itself, which needs more packages than the model does."""

import math

import torch

from benchmarks.settings import Settings
from benchmarks.train_step import endlessly, make_trainer, pretraining, random_batch
from tests.gpu.checks.outcome import Finding, Reading
from tests.gpu.checks.sizes import Size
from tests.gpu.checks.training import waits


def without_waiting(device: torch.device, size: Size) -> Finding:
    """One step of the loop, after one to warm up, in which nothing makes the host wait for the device."""
    settings = Settings(None, (*size.overrides, "video.num_frames=8"), device.type, torch.get_num_threads(), rounds=1)
    config = pretraining(settings)
    trainer, batches = make_trainer(config, device), endlessly(random_batch(config))
    trainer.train_step(batches)
    with waits(device) as found:
        trainer.train_step(batches)
    losses = [record.values["loss"] for record in trainer.records.collect(trainer.progress.step)]
    readings = [
        Reading("operations waited for", len(found), 0),
        Reading("losses not finite", sum(not math.isfinite(loss) for loss in losses), 0),
    ]
    return Finding(readings, ", ".join(sorted(set(found))))
