"""Run a task: train it, or evaluate a checkpoint. Every entry script calls this."""

import importlib.util
import os
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.distributed import DistError

from configs.schema import RunConfig
from engine import checkpoint_folder
from engine.checkpoint_rotation import BEST, LAST
from engine.distributed import (
    done_by_main,
    from_main,
    gather_objects,
    is_main,
    local_rank,
    rank,
    start_distributed,
    stop_distributed,
    world_size,
)
from engine.fetching import Obtained
from engine.fit import fit
from engine.heartbeat import Heartbeat
from engine.host_memory import keep_freed_memory
from engine.hub import SCHEME, Checkpoint
from engine.interruption import Interrupted, Interruption
from engine.logging import headline, logger, start_logging
from engine.loop import Trainer, evaluate
from engine.precision import DTYPES, check_gpu_is_supported, resolve_precision
from engine.random_state import seed_everything
from engine.results import RESULTS, write_results
from engine.resume import find_last
from engine.task import Task, TaskClass
from engine.watchdog import RankFailed, Watchdog


def run(
    config: RunConfig, task_class: TaskClass, *, evaluate_only: bool = False, obtained: Obtained | None = None
) -> None:
    """Train `task_class(config, device)`, resuming from its output folder if it can; or evaluate `config.checkpoint`.

    Evaluations write `results.json` in `config.output_dir`. A run with a separate test set ends by evaluating its best
    weights on it; a finished run is evaluated again. `obtained` is what `config` names, if the caller has fetched it.

    Raises:
        Interrupted: a signal asked the run to stop; everything is saved.
        KeyboardInterrupt: Ctrl-C ended the evaluation of a checkpoint.
        RankFailed: with several processes, another one ended or hangs.
    """
    assert config.output_dir is not None, "the entry script names the output folder"
    check_datasets_package()
    stall_timeout = config.train.stall_timeout

    with Interruption() as interruption:
        _join_other_processes(stall_timeout)

        # An evaluation beside a run leaves the run's own heartbeats alone.
        beats = Path(config.output_dir) / ("heartbeats_of_evaluation" if evaluate_only else "heartbeats")
        with Heartbeat(beats, rank()) as heartbeat:
            processes = gather_objects(heartbeat.process)
            with Watchdog(heartbeat, processes, stall_timeout) as watchdog:
                try:
                    _run(config, task_class, evaluate_only, obtained or Obtained(), heartbeat, interruption)
                except Interrupted:
                    heartbeat.end(None)
                    if evaluate_only and interruption.signal == "SIGINT":
                        if world_size() == 1:
                            heartbeat.discard()
                        raise KeyboardInterrupt from None  # for its exit status: nothing was saved
                    raise
                except ValueError:
                    if world_size() == 1 and heartbeat.latest.doing == "starting":
                        heartbeat.discard()  # a run that was refused leaves nothing behind
                    raise
                except RuntimeError as error:
                    # The error of a collective does not name the rank that is missing.
                    if world_size() > 1 and watchdog.explain():
                        raise RankFailed from error
                    raise
                finally:
                    if world_size() == 1:
                        stop_distributed()
        if world_size() == 1 and evaluate_only:
            heartbeat.discard()
    # With several processes, only after success: after an error this could wait for ranks that are gone.
    stop_distributed()


def _join_other_processes(stall_timeout: float) -> None:
    try:
        # Longer than the watchdog waits, since it can say who is missing.
        start_distributed(timedelta(seconds=stall_timeout + 20))
    except DistError as error:
        reason = str(error).partition("\n")[0]
        print(
            f"error: the processes did not find each other ({reason}); one may have ended during start-up: see its "
            "output and the launcher's",
            file=sys.stderr,
        )
        raise RankFailed from error


def _run(
    config: RunConfig,
    task_class: TaskClass,
    evaluate_only: bool,
    obtained: Obtained,
    heartbeat: Heartbeat,
    interruption: Interruption,
) -> None:
    start_logging()
    if evaluate_only and config.checkpoint is None:
        raise ValueError("checkpoint: nothing to evaluate; give checkpoint=FILE_OR_FOLDER")
    resumes = config.trains_in_steps and not evaluate_only
    last = None if not resumes else done_by_main(lambda: find_last(config, Path(cast(str, config.output_dir))))

    device = choose_device()
    if device.type == "cpu":
        keep_freed_memory()
    if config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.train.deterministic)
    seed_everything(config.seed)  # the same on every rank, so that fresh weights agree

    # A task sees paths on this machine alone. A resumed run reads tokenizer and lists from its own checkpoint: what it
    # started from may no longer exist.
    start = config
    if last is not None:
        start = replace(config, checkpoint=str(last / checkpoint_folder.WEIGHTS))
    elif config.checkpoint is not None:
        checkpoint = obtained.checkpoint or Checkpoint.find(config.checkpoint)
        start = replace(config, checkpoint=str(checkpoint.path))
        if checkpoint.source.startswith(SCHEME):
            logger.info("%s is %s", checkpoint.source, checkpoint.path)
    if last is None and obtained.vocabulary is not None:
        text = replace(config.model.text, tokenizer=str(obtained.vocabulary))
        start = replace(start, model=replace(start.model, text=text))
    task = task_class(start, device)
    cast(nn.Module, task).to(device)

    if evaluate_only:
        heartbeat.beat(0, "evaluating")
        task.fold_for_inference(DTYPES[resolve_precision(config.train.precision, device)])
        write_evaluation(task, config, device, cast(str, config.checkpoint))
    elif not config.trains_in_steps:
        best = fit(task, config, device, heartbeat)
        heartbeat.beat(0, "evaluating")
        write_evaluation(task, config, device, str(best))
    else:
        train(Trainer(task, config, device, last, heartbeat, interruption))


def train(trainer: Trainer) -> None:
    """Train to the end, then evaluate the best weights on the test set if there is a separate one.

    A run that was finished already is evaluated again with its best weights in any case.
    """
    task, config = trainer.task, trainer.config
    finished = trainer.progress.step == trainer.total_steps
    if finished:
        logger.info("this run is finished; raise train.max_epochs to continue training")
    trainer.train()

    # Rank 0, which has written the folder, decides for all: others may see it later, and all must evaluate together.
    best = from_main(checkpoint_folder.find_folder(trainer.folder / BEST))
    if best is None:
        logger.info("finished: the weights are in %s", trainer.folder / LAST)
    elif not finished:
        logger.info("finished: the best weights are in %s, their results in %s", best, trainer.folder / RESULTS)

    if best is not None and (finished or config.data.test_is_apart):
        logger.info("evaluating %s", best)
        trainer.heartbeat.beat(trainer.progress.step, "evaluating")
        checkpoint_folder.load_weights(trainer.module, best)
        write_evaluation(task, config, trainer.device, str(best))


def write_evaluation(task: Task, config: RunConfig, device: torch.device, source: str) -> dict[str, Any]:
    """Evaluate `task`, with weights from `source`, on the final evaluation set, and write results.json."""
    result = evaluate(task, config, device, final=True)
    if is_main():
        Path(cast(str, config.output_dir)).mkdir(parents=True, exist_ok=True)
        write_results(config, result, source, device, resolve_precision(config.train.precision, device))
        shown = headline(result["metrics"], task.best_metric) or result.get("note", "no metrics")
        logger.info("%s: %s (all: %s)", result["split"], shown, Path(cast(str, config.output_dir)) / RESULTS)
    return result


def choose_device() -> torch.device:
    """This process's own GPU, or the CPU of a machine without."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank())
    check_gpu_is_supported(device)
    torch.cuda.set_device(device)
    return device


def check_datasets_package() -> None:
    """`ValueError` if `import datasets` finds another package than ours."""
    specification = importlib.util.find_spec("datasets")
    found = specification.origin if specification else None
    root = Path(__file__).resolve().parent.parent
    if found is None or not Path(found).resolve().is_relative_to(root / "datasets"):
        raise ValueError(
            f"another `datasets` package is imported first ({found}); run from the repository root, {root}"
        )
