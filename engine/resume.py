"""Check that an output folder's run is the one that the configuration describes, and restore it."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from configs.load import load, to_dict
from configs.schema import RunConfig
from configs.values import changes
from engine import checkpoint_folder
from engine.checkpoint_rotation import BEST, LAST, RESUMED_FROM, newest_first
from engine.distributed import rank, world_size
from engine.logging import METRICS, logger
from engine.random_state import random_state_from_json, restore_random_state, seed_everything

# What may change when a run resumes. None of it changes what is learned: where data are, speed and memory, when to
# log, save, evaluate or give up, and which weights are kept as best.
FREE_SETTINGS = frozenset(
    (
        "output_dir",
        "wandb_project",
        "data.root",
        "data.videos",
        "data.cache",
        "data.cache_gb",
        "data.remote.cache_dir",
        "data.remote.cache_gib",
        "data.remote.tries",
        "data.remote.stall_seconds",
        "train.workers",
        "train.log_every",
        "train.save_every",
        "train.eval_every",
        "train.keep_checkpoints",
        "train.sample_timeout",
        "train.stall_timeout",
        "train.max_skipped",
        "train.activation_checkpointing",
        "train.compile",
        "evaluation.batch_size",
        "evaluation.best_metric",
        "evaluation.rerank_batch_size",
    )
)


@dataclass
class Progress:
    """How far a run is: optimizer steps done, whole epochs done, steps done of the current epoch.

    `num_skipped` of the steps changed nothing, because a loss or gradient was not finite; `skipped_in_a_row` counts
    those since the last step that did.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    skipped_in_a_row: int = 0
    num_skipped: int = 0


def find_last(config: RunConfig, folder: Path) -> Path | None:
    """The newest intact checkpoint to resume from, or None for a new run; damaged newer ones are logged.

    `ValueError` if `folder` holds another run, or if none of its checkpoints is intact.
    """
    last = _newest_intact(folder)
    if last is None and (folder / BEST).exists():
        raise ValueError(f"{folder}: holds {BEST}, but no {LAST} to resume from; choose another output_dir")

    written_config = (last or folder) / checkpoint_folder.CONFIG
    if not written_config.exists():
        if (folder / METRICS).exists():
            raise ValueError(f"{folder}: holds {METRICS} but no {checkpoint_folder.CONFIG}; choose another output_dir")
        return None

    if last is not None:
        task = checkpoint_folder.read_json(last / checkpoint_folder.STATE)["task"]
        if task != config.task:
            raise ValueError(f"{folder}: holds a run of {task}, not of {config.task}; choose another output_dir")
    check_same_run(config, written_config, folder)
    return last


def _newest_intact(folder: Path) -> Path | None:
    damaged: list[str] = []
    for candidate in newest_first(folder):
        damage = checkpoint_folder.find_damage(candidate, RESUMED_FROM)
        if damage is None:
            step = checkpoint_folder.read_json(candidate / checkpoint_folder.STATE)["step"]
            for line in damaged:
                logger.warning("%s; resuming from %s, step %d; it is kept as *.damaged", line, candidate, step)
            return candidate
        damaged.append(f"{candidate}: {damage}")

    if damaged:
        raise ValueError(
            f"{folder}: all of its checkpoints are damaged: {'; '.join(damaged)}. Restore one from a copy, or choose "
            "another output_dir to start a new run"
        )
    return None


def check_same_run(config: RunConfig, written_config: Path, folder: Path) -> None:
    """`ValueError` if `folder`, by its `written_config`, holds a run with settings that change what is learned."""
    try:
        earlier = load(type(config), written_config, [])
    except ValueError as error:
        raise ValueError(f"{folder}: holds another run; choose another output_dir ({error})") from error

    free_settings = FREE_SETTINGS
    if config.train.max_epochs > earlier.train.max_epochs:
        free_settings |= {"train.max_epochs"}

    changed = changes(to_dict(earlier), to_dict(config))
    lines = [f"{key}: was {before}, now {now}" for key, (before, now) in changed.items() if key not in free_settings]
    if lines:
        listing = "\n  ".join(lines)
        raise ValueError(
            f"{folder}: holds a run with other settings; choose another output_dir, or set these back:\n  {listing}"
        )


def restore(
    folder: Path,
    config: RunConfig,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    steps_per_epoch: int,
) -> Progress:
    """Restore everything that a checkpoint holds, the random generators of this rank last."""
    state = checkpoint_folder.read_json(folder / checkpoint_folder.STATE)
    if state["steps_per_epoch"] != steps_per_epoch:
        raise ValueError(
            f"{folder}: an epoch had {state['steps_per_epoch']} steps and now has {steps_per_epoch}: the training set "
            "has changed; put it back or choose another output_dir"
        )

    # The file, not the folder: `find_last` has compared the sums already.
    checkpoint_folder.load_weights(module, folder / checkpoint_folder.WEIGHTS)
    checkpoint_folder.load_optimizer(optimizer, folder / checkpoint_folder.OPTIMIZER)
    if scaler.is_enabled() and state["scaler"]:
        scaler.load_state_dict(state["scaler"])

    counted = {"skipped_in_a_row": 0, "num_skipped": 0, **state}  # older checkpoints do not count these
    progress = Progress(**{name: counted[name] for name in asdict(Progress())})
    _restore_random(checkpoint_folder.read_json(folder / checkpoint_folder.RANDOM), config.seed, progress.step)
    return progress


def check_same_data(folder: Path, digest: str) -> None:
    """`ValueError` if a checkpoint was trained on other data than `digest` stands for.

    Checkpoints of older versions have no digest; they are resumed with a warning.
    """
    state = checkpoint_folder.read_json(folder / checkpoint_folder.STATE)
    if "data_digest" not in state:
        logger.warning(
            "%s: was written by an older version, without a digest of its training data, so we cannot check that they "
            "are the same",
            folder,
        )
    elif state["data_digest"] != digest:
        raise ValueError(
            f"{folder}: was trained on other data: videos, texts or their order have changed, although an epoch still "
            "has as many steps; put the training set back or choose another output_dir"
        )


def best_so_far(folder: Path, metric: str) -> tuple[float, int | None]:
    """The best value of `metric` in a run's folder, and the step it was measured at; -inf and None if there is none."""
    best = checkpoint_folder.find_folder(folder / BEST)
    if best is None:
        return -math.inf, None

    state = checkpoint_folder.read_json(best / checkpoint_folder.STATE)
    if state["best_metric"] == metric:
        return state["best_value"], state["step"]

    logger.warning(
        "%s was chosen by %s, and the best is now chosen by %s: the two do not compare",
        best, state["best_metric"], metric,
    )  # fmt: skip
    return -math.inf, None


def read_quarantine(folder: Path) -> list[dict[str, Any]]:
    """The videos that could not be read before a checkpoint: `video`, `reason`, `excluded`; older ones list none."""
    path = folder / checkpoint_folder.QUARANTINE
    return checkpoint_folder.read_json(path) if path.exists() else []


def _restore_random(states: list[dict[str, Any]], seed: int, step: int) -> None:
    if len(states) != world_size():
        logger.warning(
            "the run had %d processes and now has %d: batches, their order and the schedule stay the same, but samples "
            "move to other processes, so that dropout, rounding and losses within a process (vtc_keys: local, "
            "negatives: same_rank) change; the run resumes, but not to the bit",
            len(states),
            world_size(),
        )
    seed_everything(seed, rank(), step)  # for a rank or a GPU that the checkpoint has no state of
    if rank() < len(states):
        restore_random_state(random_state_from_json(states[rank()]))
