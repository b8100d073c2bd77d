"""One optimizer step: forward and backward of its micro-batches, gradients averaged over ranks, and the update."""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from configs.schema import RunConfig
from engine.distributed import all_reduce_max, world_size
from engine.optim import build_optimizer, clip_each, step_unless
from engine.precision import autocast, resolve_precision
from engine.task import Batch, Task


class TrainingStep:
    """What an optimizer step needs: the task wrapped for DDP, its optimizer, and the loss scaler of fp16."""

    def __init__(self, task: Task, config: RunConfig, device: torch.device) -> None:
        self.module, self.device = cast(nn.Module, task), device
        self.clip_norm, self.clip_each_norm = config.optim.clip_norm, config.optim.clip_each_norm
        self.precision = resolve_precision(config.train.precision, device)

        self.optimizer = build_optimizer(self.module, config.optim)
        self.trainable = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.model = self._distributed() if world_size() > 1 else self.module

    def __call__(self, micro_batches: Sequence[Batch]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The step's losses and `grad_norm` by name, and whether it was skipped (1 or 0, the same on all ranks).

        A step is skipped, and changes neither weights nor optimizer, if a loss or gradient is not finite on any rank.
        Nothing here waits for the device.
        """
        totals: dict[str, torch.Tensor] = {}
        for number, batch in enumerate(micro_batches):
            with self._gradients_averaged(last=number == len(micro_batches) - 1):
                with autocast(self.device, self.precision):
                    losses = self.model(self._to_device(batch))
                total = torch.stack([loss.float() for loss in losses.values()]).sum()
                self.scaler.scale(total / len(micro_batches)).backward()

            named = {"loss": total, **{f"loss_{name}": loss for name, loss in losses.items()}}
            for name, loss in named.items():
                totals[name] = totals.get(name, torch.zeros_like(total)) + loss.detach() / len(micro_batches)

        self.scaler.unscale_(self.optimizer)
        totals["grad_norm"] = self._clip_gradients()

        # DDP has made the gradients the same on all ranks; losses differ, so all ranks must agree on skipping.
        is_finite = torch.stack([totals["loss"], totals["grad_norm"]]).isfinite().all()
        skipped = all_reduce_max((~is_finite).float())
        step_unless(self.optimizer, skipped)
        self.scaler.update()
        self.optimizer.zero_grad()
        return totals, skipped

    def _distributed(self) -> DistributedDataParallel:
        # DDP rearranges its gradient buckets after the first step. A resumed run would therefore sum the gradients of
        # its own first step in another order, which changes bits with more than two processes. Looking for unused
        # parameters turns the rearrangement off, at the price of a walk over the graph in every step.
        repeatable = self.device.type == "cpu" or torch.are_deterministic_algorithms_enabled()
        with warnings.catch_warnings():
            # Newer versions of torch ask for another argument; older ones lack it, and it does not stop broadcasts.
            warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
            return DistributedDataParallel(
                self.module,
                device_ids=[self.device.index] if self.device.type == "cuda" else None,
                broadcast_buffers=False,
                find_unused_parameters=(repeatable and world_size() > 2) or self._losses_differ,
            )

    @property
    def _losses_differ(self) -> bool:
        """Whether some steps lack losses that others have, and so gradients of some parameters."""
        return getattr(self.module, "losses_differ", False)

    def _gradients_averaged(self, *, last: bool) -> AbstractContextManager:
        """Have DDP average gradients over ranks once a step, in the last backward."""
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return nullcontext()

    def _to_device(self, batch: Batch) -> Batch:
        # Tensors, and what a task puts several of them in.
        move = {name: value for name, value in batch.items() if hasattr(value, "to")}
        return {**batch, **{name: value.to(self.device, non_blocking=True) for name, value in move.items()}}

    def _clip_gradients(self) -> torch.Tensor:
        """Clip gradients to `optim.clip_norm`, then each to `optim.clip_each_norm`, where these are set.

        Returns their norm before clipping.
        """
        gradients = [parameter.grad for parameter in self.trainable if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.trainable, self.clip_norm, norm)
        if self.clip_each_norm is not None:
            clip_each(gradients, self.clip_each_norm)
        return norm
