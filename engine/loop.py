"""The training loop, the only one: every task is trained by it."""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from configs.load import dump
from configs.schema import RunConfig
from engine import checkpoint
from engine.distributed import all_reduce_sum, barrier, gather_objects, is_main, rank, world_size
from engine.logging import RunLog, logger
from engine.optim import build_optimizer, lr_at, set_lr, warmup_steps
from engine.precision import autocast, resolve_precision
from engine.random_state import preserved_random_state, random_state, random_state_to_json, seed_everything
from engine.results import git_revision, write_results
from engine.resume import BEST, LAST, Progress, restore
from engine.task import Batch, Task


class Trainer:
    """One run: a task, its optimizer, and how far it is.

    `last` is the checkpoint to go on from; without one, `task` is trained as it is.
    """

    def __init__(self, task: Task, config: RunConfig, device: torch.device, last: Path | None) -> None:
        assert config.output_dir is not None
        self.task, self.config, self.device = task, config, device
        self.folder = Path(config.output_dir)
        self.module = cast(nn.Module, task)
        self.total_steps = config.train.max_epochs * task.steps_per_epoch
        warmup_steps(config.optim, self.total_steps)  # refuses one that is too long before anything is written
        self.precision = resolve_precision(config.train.precision, device)
        self.optimizer = build_optimizer(self.module, config.optim)
        self.trainable = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.model = self._distributed() if world_size() > 1 else self.module
        if last is None:
            self.progress = Progress()
            seed_everything(config.seed, rank())
        else:
            self.progress = restore(last, config, self.module, self.optimizer, self.scaler, task.steps_per_epoch)
            logger.info("going on from step %d of %d (%s)", self.progress.step, self.total_steps, last)
        barrier()  # every rank has read the folder before rank 0 writes to it
        if is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            dump(config, self.folder / checkpoint.CONFIG)
        self.log = RunLog(self.folder, config, self.progress.step, self.total_steps)
        self.unreported: list[dict[str, torch.Tensor]] = []
        self.failed: list[dict[str, str]] = []
        self.samples = 0  # of this rank since the last report; steps may differ in size
        self.report_time = time.perf_counter()

    def train(self) -> None:
        """Train to the end of `train.max_epochs`; checkpoints after every epoch and every `train.save_every` steps."""
        task, progress, settings = self.task, self.progress, self.config.train
        logger.info("training in %s on %s, %d processes", self.precision, self.device, world_size())
        try:
            self.evaluate_if_due()  # a run killed after an epoch's checkpoint still owes that epoch's evaluation
            while progress.epoch < settings.max_epochs:
                self.module.train()
                batches = task.train_epoch(progress.epoch, progress.step_in_epoch)
                while progress.step_in_epoch < task.steps_per_epoch:
                    self.train_step(batches)
                    end_of_epoch = progress.step_in_epoch == task.steps_per_epoch
                    if progress.step % settings.log_every == 0 or end_of_epoch:
                        self.report()
                    if settings.save_every and progress.step % settings.save_every == 0 and not end_of_epoch:
                        self.save_last()
                progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
                self.save_last()
                self.evaluate_if_due()
        finally:
            self.log.close()

    def train_step(self, batches: Iterator[Batch]) -> None:
        """One optimizer step over `train.accumulate` micro-batches; nothing in it waits for the device."""
        accumulate, step = self.config.train.accumulate, self.progress.step
        set_lr(self.optimizer, self._lr(step))
        self.task.begin_step(step, step / self.task.steps_per_epoch)
        totals: dict[str, torch.Tensor] = {}
        for micro_step in range(accumulate):
            with preserved_random_state():  # loaders draw from the generators when they start, we resume
                batch = next(batches)
            self.failed += batch.pop("failed", [])
            self.samples += len(next(value for value in batch.values() if isinstance(value, torch.Tensor)))
            with self._gradients_averaged(last=micro_step == accumulate - 1):
                with autocast(self.device, self.precision):
                    losses = self.model(self._to_device(batch))
                total = torch.stack([loss.float() for loss in losses.values()]).sum()
                self.scaler.scale(total / accumulate).backward()
            for name, loss in {"loss": total, **{f"loss_{name}": loss for name, loss in losses.items()}}.items():
                totals[name] = totals.get(name, torch.zeros_like(total)) + loss.detach() / accumulate
        self.scaler.unscale_(self.optimizer)
        totals["grad_norm"] = self._clip_gradients()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.unreported.append(totals)
        self.progress.step += 1
        self.progress.step_in_epoch += 1

    def report(self) -> None:
        """Log the latest step, having checked all since the last report: the one place that waits for the device."""
        if not self.unreported:
            return
        names, steps = list(self.unreported[-1]), len(self.unreported)
        rows = torch.stack([torch.stack([totals[name].float() for name in names]) for totals in self.unreported])
        rows = (all_reduce_sum(rows) / world_size()).cpu()
        self.unreported = []
        for number, row in enumerate(rows.tolist(), start=self.progress.step - steps + 1):
            self._check_finite(number, dict(zip(names, row, strict=True)))
        seconds = time.perf_counter() - self.report_time
        speed = {
            "samples_per_second": self.samples * world_size() / seconds,
            "seconds_per_step": seconds / steps,
        }
        self.samples, self.report_time = 0, time.perf_counter()
        values = {**dict(zip(names, rows[-1].tolist(), strict=True)), "lr": self._lr(self.progress.step - 1), **speed}
        self.log.bar.update(steps)
        self.log.training(self.progress.step, self.progress.step / self.task.steps_per_epoch, values)
        self.log.quarantine([entry for failed in gather_objects(self.failed) for entry in failed])
        self.failed = []

    def save_last(self) -> None:
        """Report, so that nothing broken is kept, and replace `checkpoint_last` by the run as it is now."""
        self.report()
        states = gather_objects(random_state_to_json(random_state()))
        if is_main():
            with checkpoint.replacing_folder(self.folder / LAST) as folder:
                self._write_model(folder, {"scaler": self.scaler.state_dict(), "world_size": world_size()})
                checkpoint.save_optimizer(self.optimizer, folder / checkpoint.OPTIMIZER)
                checkpoint.write_json(folder / checkpoint.RANDOM, states)

    def evaluate_if_due(self) -> None:
        """Evaluate at the end of an epoch that asks for it and has not had it; keep the weights if they are best."""
        progress, settings = self.progress, self.config.train
        due = progress.epoch % settings.eval_every == 0 or progress.epoch == settings.max_epochs
        if self.task.best_metric is None or progress.step_in_epoch or not progress.epoch or not due:
            return
        if gather_objects(progress.step in self.log.evaluated)[0]:
            return
        result = evaluate(self.task, self.config, self.device, final=False)
        self.log.quarantine(result.get("failed", []))
        metrics, name = result["metrics"], self.task.best_metric
        if name not in metrics:
            raise ValueError(f"evaluation.best_metric: no metric is named {name!r}; there are {', '.join(metrics)}")
        if is_main():
            if metrics[name] > self._best_before(name):
                with checkpoint.replacing_folder(self.folder / BEST) as folder:
                    self._write_model(folder, {"best_metric": name, "best_value": metrics[name]})
                write_results(self.config, result, str(self.folder / BEST), self.device, self.precision)
            # Written last: its line is what says that all of this is done.
            self.log.evaluation(progress.step, float(progress.epoch), metrics)
        self.report_time = time.perf_counter()

    def _distributed(self) -> DistributedDataParallel:
        return DistributedDataParallel(
            self.module,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            broadcast_buffers=False,
        )

    def _gradients_averaged(self, *, last: bool) -> AbstractContextManager:
        """DDP averages gradients over ranks once a step, in the last backward."""
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return nullcontext()

    def _lr(self, step: int) -> float:
        return lr_at(step, self.config.optim, self.task.steps_per_epoch, self.config.train.max_epochs)

    def _to_device(self, batch: Batch) -> Batch:
        move = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
        return {**batch, **{name: value.to(self.device, non_blocking=True) for name, value in move.items()}}

    def _clip_gradients(self) -> torch.Tensor:
        """The norm of all gradients before they were clipped to `optim.clip_norm`, if that is set."""
        gradients = [parameter.grad for parameter in self.trainable if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.config.optim.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.trainable, self.config.optim.clip_norm, norm)
        return norm

    def _check_finite(self, step: int, values: dict[str, float]) -> None:
        # In fp16 the scaler finds an overflow in the gradients, leaves that step out and lowers the scale.
        checked = [name for name in values if name != "grad_norm" or self.precision != "fp16"]
        if not all(math.isfinite(values[name]) for name in checked):
            listing = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            raise FloatingPointError(
                f"step {step} is not finite: {listing}. Lower optim.lr, set optim.clip_norm, or try "
                f"train.precision=fp32; {self.folder / LAST}, if there is one, is from before it"
            )

    def _best_before(self, metric: str) -> float:
        best = checkpoint.find_folder(self.folder / BEST)
        if best is None:
            return -math.inf
        state = checkpoint.read_json(best / checkpoint.STATE)
        if state["best_metric"] == metric:
            return state["best_value"]
        logger.warning(
            "%s was chosen by %s and is now by %s: the two do not compare", best, state["best_metric"], metric
        )
        return -math.inf

    def _write_model(self, folder: Path, state: dict[str, Any]) -> None:
        checkpoint.save_weights(self.module.state_dict(), folder / checkpoint.WEIGHTS)
        dump(self.config, folder / checkpoint.CONFIG)
        common = {
            "task": self.config.task,
            **asdict(self.progress),
            "steps_per_epoch": self.task.steps_per_epoch,
            "lr": self._lr(self.progress.step - 1),
            "precision": self.precision,
            "revision": git_revision(),
        }
        checkpoint.write_json(folder / checkpoint.STATE, {**common, **state})
        self.task.save_extras(folder)


def evaluate(task: Task, config: RunConfig, device: torch.device, *, final: bool) -> dict[str, Any]:
    """`task.evaluate` in the run's precision, without gradients; leaves modes and random generators as they were."""
    module = cast(nn.Module, task)
    training = module.training
    module.eval()
    precision = resolve_precision(config.train.precision, device)
    with preserved_random_state(), torch.no_grad(), autocast(device, precision):
        result = task.evaluate(final)
    module.train(training)
    return result
