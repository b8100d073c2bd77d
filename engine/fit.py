"""Training that takes no optimizer steps: the task fits its weights in one call, and they are evaluated and kept."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from configs.load import dump
from configs.schema import RunConfig
from engine import checkpoint_folder
from engine.checkpoint_rotation import BEST, CheckpointWriter, take_snapshot
from engine.distributed import barrier, is_main
from engine.heartbeat import Heartbeat
from engine.logging import logger
from engine.precision import autocast, resolve_precision
from engine.results import git_revision
from engine.resume import check_same_run


def fit(task: Any, config: RunConfig, device: torch.device, heartbeat: Heartbeat) -> Path:
    """Let the task fit its weights, and write them to `checkpoint_best`; returns that folder.

    There is no half-done state: a run that was killed starts over, with whatever the task itself keeps on disk.
    """
    assert config.output_dir is not None
    folder = Path(config.output_dir)
    precision = resolve_precision(config.train.precision, device)
    if (folder / checkpoint_folder.CONFIG).exists():
        check_same_run(config, folder / checkpoint_folder.CONFIG, folder)
    barrier()  # every process has read the folder before the first one writes to it
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        dump(config, folder / checkpoint_folder.CONFIG)

    heartbeat.beat(0, "training")
    module = cast(nn.Module, task).eval()
    with torch.no_grad(), autocast(device, precision):
        task.fit()

    if is_main():
        state = {"task": config.task, "step": 0, "precision": precision, "revision": git_revision()}
        writer = CheckpointWriter(folder, config.train.keep_checkpoints)
        try:
            writer.write_best(take_snapshot(module, None, {checkpoint_folder.STATE: state}, config, task.save_extras))
        finally:
            writer.close()
    barrier()
    logger.info("fitted: the weights are in %s", folder / BEST)
    return folder / BEST
