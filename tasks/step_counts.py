"""Denominators of the losses: counts over all micro-batches of an optimizer step, on all processes.

The engine averages a task's losses over micro-batches and processes. If a task divides its sum by the mean count per
micro-batch, that average is the step's total sum over its total count, however the step is cut into micro-batches.
Counting happens on the CPU before the first forward pass, so the host never waits for the device.
"""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.distributed import all_gather_rows


def count_texts(batches: Sequence[dict[str, Any]], masks: Sequence[Tensor]) -> None:
    """Count the texts of a step and add to each micro-batch what its forward pass needs.

    `masks` (B, S), on the CPU, are this process's text masks, one a micro-batch. Each batch gets three entries:
    `part`, its number in the step; `mean_tokens`, the mean number of tokens per micro-batch over all processes, first
    tokens not counted; and `longest_text`, the length of the longest text in this micro-batch on any process.
    """
    counts = _of_all([[int(mask[:, 1:].numpy().sum()), mask.shape[1]] for mask in masks])
    mean_tokens = float(counts[..., 0].mean())
    longest = counts[..., 1].max(axis=0).tolist()
    for part, batch in enumerate(batches):
        batch["part"], batch["mean_tokens"], batch["longest_text"] = part, mean_tokens, longest[part]


def mean_count(counts: Sequence[int]) -> float:
    """The mean count per micro-batch of a step, over all processes."""
    return float(_of_all(counts).mean())


def _of_all(counts: Sequence[int] | Sequence[Sequence[int]]) -> NDArray:
    """The counts of all processes (world, micro-batches, ...); all have equally many micro-batches."""
    return all_gather_rows(torch.tensor(counts)[None]).numpy()
