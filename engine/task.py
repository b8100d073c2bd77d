"""What the engine asks of a task: a `torch.nn.Module` with these methods, which need not inherit from anything here."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

Batch = dict[str, Any]


class Task(Protocol):
    """A model, its data and its objective. `state_dict()` holds all that training needs: weights, twin, queue."""

    best_metric: str | None
    """The metric (higher is better) that chooses `checkpoint_best`; None to train without evaluation.

    The engine reads it after each evaluation, which may first find out which metrics this machine can compute.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        ...

    @property
    def data_digest(self) -> str:
        """A text that changes with the training data: their rows, texts or order; the same on all ranks."""
        ...

    def train_epoch(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The epoch's micro-batches from `first_step` on, `train.accumulate` a step, tensors on the CPU.

        Besides what the task itself needs, a batch may hold `names`, one for each sample, and `failed`, the videos that
        could not be read: `{"video", "reason", "excluded"}`; `excluded` is true if a video hung or ended its reader.
        """
        ...

    def exclude(self, videos: Iterable[str]) -> None:
        """Do not open these videos from the next `train_epoch` on; gets all that were ever excluded, on every rank."""
        ...

    def begin_step(self, step: int, epoch: float, batches: Sequence[Batch]) -> None:
        """Prepare optimizer step `step`, counted over the whole run; called on all ranks before the first forward pass.

        `batches` are this rank's micro-batches of the step, still on the CPU. Here a task counts what its losses divide
        by, over all micro-batches and ranks, and may add to the batches what the forward passes need.
        """
        ...

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The losses, whose sum is minimised; a loss of the step is its mean over ranks and micro-batches.

        Every parameter that requires a gradient must get one from the sum: freeze what no loss reaches.

        All batches of a step have the same losses. A task whose steps differ in which losses they have says so by an
        attribute `losses_differ`; a parameter that no loss of a step reaches then stays as it is in that step.
        """
        ...

    def evaluate(self, final: bool) -> dict[str, Any]:
        """`metrics`, `dataset`, `split`, `num_videos`, `num_texts`, `num_missing`; the same on all ranks.

        `final` evaluates on the test set, if there is a separate one; otherwise on the set that chooses the best
        weights. `failed` may list files that could not be read, and `files` further files to write beside results.json:
        file name -> a function that writes to the path it is given. Any other key is written to results.json too.
        """
        ...

    def fold_for_inference(self, dtype: torch.dtype) -> None:
        """Prepare for evaluation alone: from now on, evaluate faster, in `dtype`, with outputs equal to 1e-5."""
        ...

    def save_extras(self, folder: Path) -> None:
        """Write what belongs beside the weights, such as the tokenizer."""
        ...


TaskClass = Callable[[Any, torch.device], Task]
"""Makes a task from its configuration and the device to train on."""
