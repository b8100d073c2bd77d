"""What the engine asks of a task, which is a `torch.nn.Module` with these besides and inherits from nothing else."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

Batch = dict[str, Any]


class Task(Protocol):
    """A model, its data and its objective. `state_dict()` holds all that training needs: weights, twin, queue."""

    best_metric: str | None
    """The metric (higher is better) that chooses `checkpoint_best`; None if training is not to be evaluated.

    It is looked up after each evaluation, which may settle which of several metrics can be had on this machine.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        ...

    @property
    def data_digest(self) -> str:
        """A text that other training data do not have: rows, texts, or their order; the same on all ranks."""
        ...

    def train_epoch(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The epoch's micro-batches from `first_step` on, `train.accumulate` a step, tensors on the CPU.

        Beside what the task itself needs a batch may hold `names`, one of each sample, and `failed`, what could not be
        read: `{"video", "reason", "excluded"}`, the last of them true for what hung or ended its reader.
        """
        ...

    def exclude(self, videos: Iterable[str]) -> None:
        """Open none of these any more from the next `train_epoch` on; all that were ever excluded, on every rank."""
        ...

    def begin_step(self, step: int, epoch: float, batches: Sequence[Batch]) -> None:
        """Called before the first forward pass of optimizer step `step`, counted over the whole run, on all ranks.

        `batches` are the step's micro-batches of this rank, still on the CPU. What divides a loss is counted here over
        all of them and all ranks, and what the forward passes need besides may be added to them.
        """
        ...

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The losses, whose sum is trained; the mean of each over ranks and micro-batches is the loss of the step.

        The sum gives every parameter that requires a gradient one: what no loss reaches has to be frozen.
        """
        ...

    def evaluate(self, final: bool) -> dict[str, Any]:
        """`metrics`, `dataset`, `split`, `num_videos`, `num_texts`, `num_missing`; the same on all ranks.

        `final` is on the test set, where there is one apart; else on the set that chooses the best weights. `failed`
        may list files that could not be read, and `files` what to write beside results.json: file name -> a function
        that writes it to the path it is given. Any other key is written to results.json too.
        """
        ...

    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """Called where nothing will be trained: evaluate faster from now on, in `dtype`, with outputs equal to 1e-5."""
        ...

    def save_extras(self, folder: Path) -> None:
        """Write what has to lie beside the weights, such as the tokenizer."""
        ...


TaskClass = Callable[[Any, torch.device], Task]
"""How a task is made: from its configuration and the device to train on."""
