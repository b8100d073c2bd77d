"""What the losses of an optimizer step are divided by: counts over all of its micro-batches, of all processes.

The engine takes the mean over micro-batches and processes of what a task returns. A sum that is divided by the mean
count of a micro-batch thus becomes the sum over the whole step for each that was counted, however the step is cut up.
All is counted on the CPU before the first forward pass, so that the host never waits for the device.
"""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.distributed import all_gather_rows


def count_texts(batches: Sequence[dict[str, Any]], masks: Sequence[Tensor]) -> None:
    """Count the texts of a step and put into each of its micro-batches what its forward pass needs.

    `masks` (B, S), on the CPU, are the text masks of this process, one a micro-batch. Each batch gets its number in the
    step (`part`), the mean over all micro-batches of all processes of their tokens after the first (`mean_tokens`), and
    the length of the longest text of this micro-batch in any process (`longest_text`).
    """
    counts = _of_all([[int(mask[:, 1:].numpy().sum()), mask.shape[1]] for mask in masks])
    mean_tokens = float(counts[..., 0].mean())
    longest = counts[..., 1].max(axis=0).tolist()
    for part, batch in enumerate(batches):
        batch["part"], batch["mean_tokens"], batch["longest_text"] = part, mean_tokens, longest[part]


def mean_count(counts: Sequence[int]) -> float:
    """The mean of what was counted in each micro-batch of a step, over those of all processes."""
    return float(_of_all(counts).mean())


def _of_all(counts: Sequence[int] | Sequence[Sequence[int]]) -> NDArray:
    """Counts of all processes (world, micro-batches, ...), which have equally many micro-batches."""
    return all_gather_rows(torch.tensor(counts)[None]).numpy()
