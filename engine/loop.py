"""The only training loop: it trains every task."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from configs.load import dump
from configs.schema import RunConfig
from engine import checkpoint_folder
from engine.checkpoint_rotation import BEST, LAST, CheckpointWriter, take_snapshot
from engine.distributed import (
    any_rank,
    barrier,
    from_main,
    gather_objects,
    is_main,
    rank,
    world_size,
)
from engine.heartbeat import Heartbeat
from engine.interruption import Interrupted, Interruption
from engine.logging import SKIPPED_STEPS, RunLog, logger
from engine.optim import lr_at, set_lr, warmup_steps
from engine.precision import autocast, resolve_precision
from engine.random_state import preserved_random_state, random_state, random_state_to_json, seed_everything
from engine.results import git_revision, write_results
from engine.resume import Progress, best_so_far, check_same_data, read_quarantine, restore
from engine.step import TrainingStep
from engine.step_records import StepRecord, StepRecords
from engine.task import Batch, Task


class Trainer:
    """One run: a task, its optimizer and its progress.

    `last` is the checkpoint to resume from; without one, `task` is trained as it is.
    """

    def __init__(
        self,
        task: Task,
        config: RunConfig,
        device: torch.device,
        last: Path | None,
        heartbeat: Heartbeat,
        interruption: Interruption,
    ) -> None:
        assert config.output_dir is not None
        self.task, self.config, self.device = task, config, device
        self.heartbeat, self.interruption = heartbeat, interruption
        self.folder = Path(config.output_dir)
        self.module = cast(nn.Module, task)
        self.total_steps = config.train.max_epochs * task.steps_per_epoch
        warmup_steps(config.optim, self.total_steps)  # refuses one that is too long before anything is written
        self.step = TrainingStep(task, config, device)

        self.quarantine: dict[str, dict[str, Any]] = {}  # the first entry of each video; the same on all ranks
        if last is None:
            self.progress = Progress()
            seed_everything(config.seed, rank())
        else:
            self.progress = restore(
                last, config, self.module, self.step.optimizer, self.step.scaler, task.steps_per_epoch
            )
            check_same_data(last, task.data_digest)
            self.quarantine = {entry["video"]: entry for entry in read_quarantine(last)}
            logger.info("resuming from step %d of %d (%s)", self.progress.step, self.total_steps, last)

        barrier()  # every rank has read the folder before rank 0 writes to it
        if is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            dump(config, self.folder / checkpoint_folder.CONFIG)

        self.log = RunLog(self.folder, config, self.progress.step, self.total_steps)
        self.writer = CheckpointWriter(self.folder, config.train.keep_checkpoints)
        self.saved_step = None if last is None else self.progress.step
        self.records = StepRecords()
        self.failed: list[dict[str, Any]] = []
        self.samples = 0  # of this rank since the last report; steps may differ in size
        self.report_time = time.perf_counter()

    def train(self) -> None:
        """Train to the end of `train.max_epochs`; save after every epoch and every `train.save_every` steps.

        Raises `Interrupted`, with everything saved, once a signal has asked for it.
        """
        progress, settings = self.progress, self.config.train
        logger.info("training in %s on %s, %d processes", self.step.precision, self.device, world_size())

        try:
            self.evaluate_if_due()  # a run killed after an epoch's checkpoint still owes that epoch's evaluation
            while progress.epoch < settings.max_epochs:
                with self.interruption.deferred():
                    self.train_epoch()
                self.evaluate_if_due()
            self.wait_until_saved()
        finally:
            self.log.close()
            self.writer.close()

    def train_epoch(self) -> None:
        """Train what is left of an epoch, and save."""
        task, progress, settings = self.task, self.progress, self.config.train
        task.exclude([video for video, entry in self.quarantine.items() if entry.get("excluded")])
        self.module.train()

        batches = task.train_epoch(progress.epoch, progress.step_in_epoch)
        while progress.step_in_epoch < task.steps_per_epoch:
            if any_rank(self.interruption.signal is not None):
                self.save_last()
                self.wait_until_saved()
                signal_name = self.interruption.signal or "a signal to another rank"
                raise Interrupted(
                    f"told to stop by {signal_name}; saved at step {progress.step} of {self.total_steps} in "
                    f"{self.folder}"
                )

            self.train_step(batches)

            end_of_epoch = progress.step_in_epoch == task.steps_per_epoch
            if progress.step % settings.log_every == 0 or end_of_epoch:
                self.report()
            if settings.save_every and progress.step % settings.save_every == 0 and not end_of_epoch:
                self.save_last()
            self.writer.check()

        progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
        self.save_last()

    def train_step(self, batches: Iterator[Batch]) -> None:
        """Take one optimizer step over `train.accumulate` micro-batches; nothing in it waits for the device."""
        accumulate, step = self.config.train.accumulate, self.progress.step
        self.heartbeat.beat(step, "loading")
        # A loader draws from the generators when it starts, which a resumed run does at other steps.
        with preserved_random_state():
            micro_batches = [next(batches) for _ in range(accumulate)]

        # The task's own tensors are what is left in a batch after this.
        names = [name for batch in micro_batches for name in batch.pop("names", [])]
        self.heartbeat.beat(step, "training", names)
        for batch in micro_batches:
            self.failed += batch.pop("failed", [])
            self.samples += len(next(value for value in batch.values() if isinstance(value, torch.Tensor)))

        set_lr(self.step.optimizer, self._lr(step))
        self.task.begin_step(step, step / self.task.steps_per_epoch, micro_batches)
        totals, skipped = self.step(micro_batches)
        self.records.add(totals, skipped, names)
        self.progress.step += 1
        self.progress.step_in_epoch += 1

    def report(self) -> None:
        """Log the latest step, and all steps skipped since the last report; waits for the device.

        Raises FloatingPointError, with the run saved, after more than `train.max_skipped` skipped steps in a row.
        """
        records = self.records.collect(self.progress.step)
        if not records:
            return

        seconds = time.perf_counter() - self.report_time
        speed = {
            "samples_per_second": self.samples * world_size() / seconds,
            "seconds_per_step": seconds / len(records),
        }
        self.samples, self.report_time = 0, time.perf_counter()

        # A loss that the latest step does not have is that of the latest step that has it.
        latest: dict[str, float] = {}
        for record in records:
            self._count_skipped(record)
            latest |= record.values
        values = {**latest, "lr": self._lr(self.progress.step - 1), **speed}
        values["skipped_steps"] = self.progress.num_skipped
        self.log.bar.update(len(records))
        self.log.training(self.progress.step, self.progress.step / self.task.steps_per_epoch, values)

        self._share_failed(self.failed)
        self.failed = []
        if self.progress.skipped_in_a_row > self.config.train.max_skipped:
            self._end_unsound(records[-1])

    def save_last(self) -> None:
        """Report, and start to write the run's present state to `checkpoint_last` while training continues."""
        self.report()
        if self.progress.step != self.saved_step:
            self._save_last()

    def wait_until_saved(self) -> None:
        """Wait on all ranks: a rank that ends early may take down rank 0 while it writes."""
        self.writer.wait()
        barrier()

    def _save_last(self) -> None:
        self.heartbeat.beat(self.progress.step, "saving")
        states = gather_objects(random_state_to_json(random_state()))
        if is_main():
            only_training_needs = {"scaler": self.step.scaler.state_dict(), "world_size": world_size()}
            documents = {
                checkpoint_folder.STATE: self._state(only_training_needs),
                checkpoint_folder.RANDOM: states,
                checkpoint_folder.QUARANTINE: list(self.quarantine.values()),
            }
            extras = self.task.save_extras
            snapshot = take_snapshot(self.module, self.step.optimizer, documents, self.config, extras)
            self.writer.write_last(snapshot, self.progress.step)
        self.saved_step = self.progress.step

    def _count_skipped(self, record: StepRecord) -> None:
        """Count a skipped step, in all and in a row, and log it with all ranks' samples."""
        progress = self.progress
        progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if record.skipped else 0
        if record.skipped:
            progress.num_skipped += 1
            samples = [name for names in gather_objects(record.samples) for name in names]
            self.log.skipped(record.step, record.values, samples)

    def _end_unsound(self, record: StepRecord) -> None:
        self._save_last()
        self.wait_until_saved()
        listing = ", ".join(f"{name} {value:.4g}" for name, value in record.values.items())
        raise FloatingPointError(
            f"{self.progress.skipped_in_a_row} steps in a row up to step {record.step} were not finite and skipped, "
            f"the last: {listing}. See {self.folder / SKIPPED_STEPS}. The weights from before them are in "
            f"{self.folder / LAST}: start a new run with checkpoint={self.folder / LAST}, another output_dir, and a "
            "lower optim.lr, an optim.clip_norm, or train.precision=fp32"
        )

    def _share_failed(self, failed: list[dict[str, Any]]) -> None:
        """Put what any rank could not read on every rank's quarantine list, and log it."""
        entries = [entry for part in gather_objects(failed) for entry in part]
        for entry in entries:
            known = self.quarantine.get(entry["video"])
            if known is None or (entry.get("excluded") and not known.get("excluded")):
                self.quarantine[entry["video"]] = entry
        self.log.quarantine(entries)

    def evaluate_if_due(self) -> None:
        """Evaluate at the end of an epoch if that is due and not done yet; keep the weights if they are the best."""
        progress, settings = self.progress, self.config.train
        at_end_of_epoch = progress.epoch > 0 and progress.step_in_epoch == 0
        is_due = progress.epoch % settings.eval_every == 0 or progress.epoch == settings.max_epochs
        if self.task.best_metric is None or not (at_end_of_epoch and is_due):
            return
        if from_main(progress.step in self.log.evaluated):  # a resumed run may have done it
            return

        self.wait_until_saved()  # a signal may end the evaluation at any moment
        self.interruption.raise_if_any()
        self.heartbeat.beat(progress.step, "evaluating")
        result = evaluate(self.task, self.config, self.device, final=False)

        self.log.quarantine(result.get("failed", []))
        metrics, name = result["metrics"], self.task.best_metric
        if name not in metrics:
            raise ValueError(f"evaluation.best_metric: no metric is named {name!r}; there are {', '.join(metrics)}")
        if is_main():
            best_value, best_step = best_so_far(self.folder, name)
            # The same step: a kill came between its checkpoint_best and the other files of this evaluation.
            if metrics[name] > best_value or best_step == progress.step:
                best = {checkpoint_folder.STATE: self._state({"best_metric": name, "best_value": metrics[name]})}
                self.writer.write_best(take_snapshot(self.module, None, best, self.config, self.task.save_extras))
                self.writer.wait()
                write_results(self.config, result, str(self.folder / BEST), self.device, self.step.precision)
            # Written last: its line says that all of this is done.
            self.log.evaluation(progress.step, float(progress.epoch), metrics, name)
        self.report_time = time.perf_counter()

    def _lr(self, step: int) -> float:
        return lr_at(step, self.config.optim, self.task.steps_per_epoch, self.config.train.max_epochs)

    def _state(self, more: dict[str, Any]) -> dict[str, Any]:
        """What state.json says about the run at this step."""
        return {
            "task": self.config.task,
            **asdict(self.progress),
            "steps_per_epoch": self.task.steps_per_epoch,
            "data_digest": self.task.data_digest,
            "lr": self._lr(self.progress.step - 1),
            "precision": self.step.precision,
            "revision": git_revision(),
            **more,
        }


def evaluate(task: Task, config: RunConfig, device: torch.device, *, final: bool) -> dict[str, Any]:
    """Call `task.evaluate` in the run's precision, without gradients; modes and random generators stay as they were."""
    module = cast(nn.Module, task)
    training = module.training
    module.eval()

    precision = resolve_precision(config.train.precision, device)
    with preserved_random_state(), torch.no_grad(), autocast(device, precision):
        result = task.evaluate(final)

    module.train(training)
    return result
