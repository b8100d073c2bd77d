"""Batches: an order that follows from (seed, epoch) alone, cut into the rows of each rank."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from datasets.mixing import Item, Mixture, Source
from datasets.video_text import VideoTextDataset, collate

Batch = dict[str, Any]


class TrainLoader:
    """Micro-batches of one rank; neither the number of workers nor that of ranks changes what a step sees.

    `batch_size` is that of one optimizer step over all ranks, unless a source of a mixture has its own, and
    `accumulate` cuts it into as many slices. In each, the rows of all ranks one after the other are those one process
    would get. Workers live on from epoch to epoch. What does not fill a last batch is left out of its epoch.
    ValueError if sizes do not divide, or if the data, or a source with batches of its own, do not fill a single batch.
    """

    def __init__(
        self,
        data: VideoTextDataset | Mixture,
        *,
        batch_size: int,
        accumulate: int,
        seed: int,
        rank: int,
        world_size: int,
        workers: int,
    ) -> None:
        mixture = data if isinstance(data, Mixture) else Mixture([Source("data.manifest", data)])
        _check_sizes(mixture, batch_size, accumulate, world_size)
        self.steps_per_epoch = sum(mixture.steps_per_epoch(batch_size))
        self._batches = _RankBatches(mixture, batch_size, accumulate, seed, rank, world_size)
        self._loader = DataLoader(
            mixture,
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


def _check_sizes(mixture: Mixture, batch_size: int, accumulate: int, world_size: int) -> None:
    parts = accumulate * world_size
    sizes, steps = mixture.batch_sizes(batch_size), mixture.steps_per_epoch(batch_size)
    for number, size in enumerate(sizes):
        source = mixture.sources[number]
        own = mixture.mixing == "batch" and source.batch_size is not None
        found = f"data.sources: batch_size {size} of {source.name}" if own else f"train.batch_size: {size}"
        if size % parts:
            raise ValueError(
                f"{found} is not a multiple of {parts}, that is train.accumulate {accumulate} times {world_size} "
                "processes"
            )
        if not steps[number]:
            alone = mixture.mixing == "batch"
            pairs = f"{source.rows_per_epoch if alone else len(mixture)} training pairs"
            raise ValueError(
                f"{found} is more than the {pairs}{f' an epoch of {source.name}' if alone else ''}; make it smaller"
            )


class _RankBatches(Sampler):
    """Lists of items of one rank, a list a micro-batch, for the epoch that `epoch` and `first_step` name."""

    def __init__(
        self, mixture: Mixture, batch_size: int, accumulate: int, seed: int, rank: int, world_size: int
    ) -> None:
        self.mixture, self.batch_size, self.accumulate, self.seed = mixture, batch_size, accumulate, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first_step = 0, 0

    def __iter__(self) -> Iterator[list[Item]]:
        return self._of_epoch(self.epoch, self.first_step)

    def _of_epoch(self, epoch: int, first_step: int) -> Iterator[list[Item]]:
        for items in self.mixture.steps(self.batch_size, self.seed, epoch, first_step):
            rows = len(items) // (self.accumulate * self.world_size)
            for part in range(self.accumulate):
                start = (part * self.world_size + self.rank) * rows
                yield items[start : start + rows]


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
