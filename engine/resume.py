"""Whether an output folder's run is the one that the configuration describes, and where it stopped."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from configs.load import differences, load, to_dict
from configs.schema import RunConfig
from engine import checkpoint
from engine.distributed import rank, world_size
from engine.logging import METRICS, logger
from engine.random_state import random_state_from_json, restore_random_state, seed_everything

LAST = "checkpoint_last"
BEST = "checkpoint_best"

# What may change when a run goes on: where things are, how fast they come, how often they are looked at.
FREE_SETTINGS = frozenset(
    (
        "output_dir",
        "wandb_project",
        "data.root",
        "data.videos",
        "data.cache",
        "data.cache_gb",
        "train.workers",
        "train.log_every",
        "train.save_every",
        "train.eval_every",
        "train.activation_checkpointing",
        "train.compile",
        "evaluation.batch_size",
        "evaluation.rerank_batch_size",
    )
)


@dataclass
class Progress:
    """How far a run is: optimizer steps done in all, epochs done, steps done of the one begun."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0


def find_last(config: RunConfig, folder: Path) -> Path | None:
    """The checkpoint to go on from, or None for a new run; `ValueError` if `folder` holds anything else."""
    last = checkpoint.find_folder(folder / LAST)
    written = (last or folder) / checkpoint.CONFIG
    if last is None and (folder / BEST).exists():
        raise ValueError(f"{folder}: holds {BEST}, but no {LAST} to go on from; choose another output_dir")
    if not written.exists():
        if (folder / METRICS).exists():
            raise ValueError(f"{folder}: holds {METRICS} but no {checkpoint.CONFIG}; choose another output_dir")
        return None
    if last is not None:
        task = checkpoint.read_json(last / checkpoint.STATE)["task"]
        if task != config.task:
            raise ValueError(f"{folder}: holds a run of {task}, not of {config.task}; choose another output_dir")
    _check_same_run(config, written, folder)
    return last


def _check_same_run(config: RunConfig, written: Path, folder: Path) -> None:
    try:
        earlier = load(type(config), written, [])
    except ValueError as error:
        raise ValueError(f"{folder}: holds another run; choose another output_dir ({error})") from error
    changed = [line for line in differences(to_dict(earlier), to_dict(config)) if _setting(line) not in FREE_SETTINGS]
    if config.train.max_epochs > earlier.train.max_epochs:
        changed = [line for line in changed if _setting(line) != "train.max_epochs"]
    if changed:
        listing = "\n  ".join(changed)
        raise ValueError(
            f"{folder}: holds a run with other settings; choose another output_dir, or set these back:\n  {listing}"
        )


def _setting(difference: str) -> str:
    return difference.partition(": ")[0]


def restore(
    folder: Path,
    config: RunConfig,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    steps_per_epoch: int,
) -> Progress:
    """Put everything that a checkpoint holds back where it was, the random generators of this rank last."""
    state = checkpoint.read_json(folder / checkpoint.STATE)
    if state["steps_per_epoch"] != steps_per_epoch:
        raise ValueError(
            f"{folder}: an epoch had {state['steps_per_epoch']} steps and now has {steps_per_epoch}: the training set "
            "has changed; put it back or choose another output_dir"
        )
    checkpoint.load_weights(module, folder)
    checkpoint.load_optimizer(optimizer, folder / checkpoint.OPTIMIZER)
    if scaler.is_enabled() and state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    progress = Progress(**{name: state[name] for name in asdict(Progress())})
    _restore_random(checkpoint.read_json(folder / checkpoint.RANDOM), config.seed, progress.step)
    return progress


def _restore_random(states: list[dict[str, Any]], seed: int, step: int) -> None:
    if len(states) != world_size():
        logger.warning(
            "the run had %d processes and now has %d: it goes on, but not bit for bit as it would have; "
            "new processes draw from the seed and the step",
            len(states),
            world_size(),
        )
    seed_everything(seed, rank(), step)  # stands where the checkpoint knows nothing of this rank or of a GPU
    if rank() < len(states):
        restore_random_state(random_state_from_json(states[rank()]))
