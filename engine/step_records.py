"""Records of optimizer steps: losses, the norm of the gradient, and whether a step was skipped.

They stay on the device until they are read, so that no step waits for them.
"""

from dataclasses import dataclass

import torch

from engine.distributed import all_reduce_sum, world_size

SKIPPED = "skipped"


@dataclass(frozen=True)
class StepRecord:
    """One step: its number (from 1), values averaged over ranks, whether it was skipped, and this rank's samples.

    `values` always holds `loss`, the `loss_NAME` that add up to it, and `grad_norm`.
    """

    step: int
    values: dict[str, float]
    skipped: bool
    samples: list[str]


class StepRecords:
    """Keeps steps until they are collected."""

    def __init__(self) -> None:
        self._values: list[dict[str, torch.Tensor]] = []
        self._samples: list[list[str]] = []

    def __len__(self) -> int:
        return len(self._values)

    def add(self, values: dict[str, torch.Tensor], skipped: torch.Tensor, samples: list[str]) -> None:
        """Keep a step's scalar tensors for later; `skipped` is 1 on all ranks or 0 on all."""
        self._values.append({**values, SKIPPED: skipped})
        self._samples.append(samples)

    def collect(self, last_step: int) -> list[StepRecord]:
        """All steps since the last call, up to `last_step`; waits for the device and for all ranks."""
        if not self._values:
            return []

        # One row a step, so that all of them take one collective and one transfer. A step may lack losses that others
        # have, on all ranks alike.
        names = list({name: None for values in reversed(self._values) for name in values})
        missing = torch.full_like(self._values[-1]["loss"], float("nan"), dtype=torch.float32)
        rows = []
        for values in self._values:
            rows.append(torch.stack([values.get(name, missing).float() for name in names]))
        means = (all_reduce_sum(torch.stack(rows)) / world_size()).cpu()

        first = last_step - len(rows) + 1
        records = []
        kept = zip(means.tolist(), self._values, self._samples, strict=True)
        for step, (row, found, samples) in enumerate(kept, start=first):
            means_by_name = {name: mean for name, mean in zip(names, row, strict=True) if name in found}
            skipped = bool(means_by_name.pop(SKIPPED))
            records.append(StepRecord(step, means_by_name, skipped, samples))

        self._values, self._samples = [], []
        return records
