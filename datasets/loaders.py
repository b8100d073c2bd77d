"""Batches: an order that follows from (seed, epoch) alone, cut into the rows of each rank."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from datasets import sampling
from datasets.video_text import VideoTextDataset, collate

Batch = dict[str, Any]


class TrainLoader:
    """Micro-batches of one rank; neither the number of workers nor that of ranks changes what a step sees.

    `batch_size` is that of one optimizer step over all ranks, and `accumulate` cuts it into as many slices. In each,
    the rows of all ranks one after the other are those one process would get. Workers live on from epoch to epoch.
    What does not fill a last batch is left out of its epoch. ValueError if sizes do not divide, or if the data set
    does not fill a single batch.
    """

    def __init__(
        self,
        dataset: VideoTextDataset,
        *,
        batch_size: int,
        accumulate: int,
        seed: int,
        rank: int,
        world_size: int,
        workers: int,
    ) -> None:
        if batch_size % (accumulate * world_size):
            raise ValueError(
                f"train.batch_size: {batch_size} is not a multiple of {accumulate * world_size}, that is "
                f"train.accumulate {accumulate} times {world_size} processes"
            )
        self.steps_per_epoch = len(dataset) // batch_size
        if not self.steps_per_epoch:
            raise ValueError(
                f"train.batch_size: {batch_size} is more than the {len(dataset)} training pairs; make it smaller"
            )
        self._batches = _RankBatches(len(dataset), batch_size, batch_size // accumulate, seed, rank, world_size)
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._batches,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Its own, so that beginning an epoch, or beginning it again after a stop, draws nothing from torch's.
            generator=torch.Generator(),
        )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The micro-batches of an epoch from a step on; the iterator of the epoch before ends."""
        self._batches.epoch, self._batches.first_step = epoch, first_step
        return iter(self._loader)


class _RankBatches(Sampler):
    """Lists of (epoch, index) of one rank, a list a micro-batch, for the epoch that `epoch` and `first_step` name."""

    def __init__(self, length: int, batch_size: int, slice_size: int, seed: int, rank: int, world_size: int) -> None:
        self.length, self.batch_size, self.slice_size, self.seed = length, batch_size, slice_size, seed
        rows = slice_size // world_size
        self.own = slice(rank * rows, (rank + 1) * rows)
        self.epoch, self.first_step = 0, 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self._of_epoch(self.epoch, self.first_step)

    def _of_epoch(self, epoch: int, first_step: int) -> Iterator[list[tuple[int, int]]]:
        order = sampling.generator("order", self.seed, epoch).permutation(self.length)
        whole_steps = self.length // self.batch_size * self.batch_size
        for start in range(first_step * self.batch_size, whole_steps, self.slice_size):
            rows = order[start : start + self.slice_size][self.own]
            yield [(epoch, index) for index in rows.tolist()]


def evaluation_loader(
    dataset: VideoTextDataset, *, batch_size: int, rank: int, world_size: int, workers: int
) -> DataLoader:
    """Every video once over all ranks: those at rank, rank + world_size, ...; `batch_size` is that of one process.

    The last batch may be smaller, and a rank may have none.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=range(rank, len(dataset), world_size),
        collate_fn=collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )
