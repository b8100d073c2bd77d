"""What the losses of an optimizer step are divided by: counts over all of its micro-batches, of all processes.

The engine takes the mean over micro-batches and processes of what a task returns. A sum that is divided by the mean
count of a micro-batch thus becomes the sum over the whole step for each that was counted, however the step is cut up.
All is counted on the CPU before the first forward pass, so that the host never waits for the device.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.distributed import all_gather_rows


class TextCounts(NamedTuple):
    """Of the texts of one step: tokens after the first of a micro-batch, on average, and the longest text of each.

    The average is over all micro-batches of all processes. The lengths are in order, each that of any process.
    """

    tokens: float
    longest: list[int]


def count_texts(masks: Sequence[Tensor]) -> TextCounts:
    """Count the texts of a step, given this process's masks (B, S) on the CPU, one for each micro-batch."""
    counts = _of_all([[int(mask[:, 1:].numpy().sum()), mask.shape[1]] for mask in masks])
    return TextCounts(float(counts[..., 0].mean()), counts[..., 1].max(axis=0).tolist())


def mean_count(counts: Sequence[int]) -> float:
    """The mean of what was counted in each micro-batch of a step, over those of all processes."""
    return float(_of_all(counts).mean())


def _of_all(counts: Sequence[int] | Sequence[Sequence[int]]) -> NDArray:
    """Counts of all processes (world, micro-batches, ...), which have equally many micro-batches."""
    return all_gather_rows(torch.tensor(counts)[None]).numpy()
