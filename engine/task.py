"""What the engine asks of a task, which is a `torch.nn.Module` with these besides and inherits from nothing else."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

Batch = dict[str, Any]


class Task(Protocol):
    """A model, its data and its objective. `state_dict()` holds all that training needs: weights, twin, queue."""

    steps_per_epoch: int
    best_metric: str | None
    """The metric (higher is better) that chooses `checkpoint_best`; None if training is not to be evaluated.

    It is looked up after each evaluation, which may settle which of several metrics can be had on this machine.
    """

    def train_epoch(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The epoch's micro-batches from `first_step` on, `train.accumulate` a step, tensors on the CPU."""
        ...

    def begin_step(self, step: int, epoch: float) -> None:
        """Called before the first forward pass of optimizer step `step`, counted over the whole run."""
        ...

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The losses, whose sum is trained; the mean over ranks of each is the loss of the global batch.

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
