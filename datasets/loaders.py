"""Batches: an order that follows from (seed, epoch) alone, cut into the rows of each rank."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from datasets.mixing import Item, Mixture, Source
from datasets.samples import collate
from datasets.video_text import VideoTextDataset
from datasets.watching import BatchLists, WatchedLoader

Batch = dict[str, Any]
SAMPLE_TIMEOUT = 120.0
"""Seconds; what `train.sample_timeout` is by default."""


class TrainLoader:
    """Micro-batches of one rank; neither the number of workers nor that of ranks changes what a step sees.

    `batch_size` is that of one optimizer step over all ranks, unless a source of a mixture has its own, and
    `accumulate` cuts it into as many slices. In each, the rows of all ranks one after the other are those one process
    would get. Workers live on from epoch to epoch. What does not fill a last batch is left out of its epoch.
    A video that is not read within `sample_timeout` seconds, or that ends its worker twice, is excluded: replaced like
    one that cannot be read, by a row that follows from (seed, epoch, draw) and from what is excluded.
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
        sample_timeout: float = SAMPLE_TIMEOUT,
    ) -> None:
        mixture = data if isinstance(data, Mixture) else Mixture([Source("data.manifest", data)])
        _check_sizes(mixture, batch_size, accumulate, world_size)
        self.steps_per_epoch = sum(mixture.steps_per_epoch(batch_size))
        self._batches = _RankBatches(mixture, batch_size, accumulate, seed, rank, world_size)
        self._loader = WatchedLoader(
            mixture, self._batches, collate, workers=workers, sample_timeout=sample_timeout, persistent=True
        )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The micro-batches of an epoch from a step on; the iterator of the epoch before ends."""
        self._batches.epoch, self._batches.first_step = epoch, first_step
        return iter(self._loader)

    def exclude(self, videos: Iterable[str]) -> None:
        """Open these files no more, from the next epoch on that begins: they hung or ended a worker elsewhere."""
        self._loader.exclude(dict.fromkeys(videos, "hung, or ended a worker, in another process of this run"))


def _check_sizes(mixture: Mixture, batch_size: int, accumulate: int, world_size: int) -> None:
    """ValueError if a batch cannot be cut into equal parts, or if the rows do not fill one."""
    parts = accumulate * world_size
    sizes, steps = mixture.batch_sizes(batch_size), mixture.steps_per_epoch(batch_size)
    is_apart = mixture.mixing == "batch"

    for number, size in enumerate(sizes):
        source = mixture.sources[number]
        has_own_size = is_apart and source.batch_size is not None
        found = f"data.sources: batch_size {size} of {source.name}" if has_own_size else f"train.batch_size: {size}"
        if size % parts:
            raise ValueError(
                f"{found} is not a multiple of {parts}, that is train.accumulate {accumulate} times {world_size} "
                "processes"
            )

        # A source that does not end the epoch begins again as often as it has to, but not within a batch.
        ends_epoch = mixture.order == "shuffled" or number == mixture.epoch_source
        if not ends_epoch and size > len(source.data):
            raise ValueError(
                f"{found} is more than the {len(source.data)} training pairs of {source.name}, and would show some of "
                "them twice in a batch; make it smaller"
            )
        if ends_epoch and not steps[number]:
            pairs = f"{source.rows_per_epoch if is_apart else len(mixture)} training pairs"
            of_source = f" an epoch of {source.name}" if is_apart else ""
            raise ValueError(f"{found} is more than the {pairs}{of_source}; make it smaller")


class _RankBatches(BatchLists):
    """Lists of items of one rank, a list a micro-batch, for the epoch that `epoch` and `first_step` name."""

    def __init__(
        self, mixture: Mixture, batch_size: int, accumulate: int, seed: int, rank: int, world_size: int
    ) -> None:
        self.mixture, self.batch_size, self.accumulate, self.seed = mixture, batch_size, accumulate, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first_step = 0, 0

    def after(self, batches: int) -> Iterator[list[Item]]:
        """The lists from this micro-batch on, counted from `first_step`."""
        steps, parts = divmod(batches, self.accumulate)
        return islice(self._of_epoch(self.epoch, self.first_step + steps), parts, None)

    def _of_epoch(self, epoch: int, first_step: int) -> Iterator[list[Item]]:
        for items in self.mixture.steps(self.batch_size, self.seed, epoch, first_step):
            rows = len(items) // (self.accumulate * self.world_size)
            for part in range(self.accumulate):
                start = (part * self.world_size + self.rank) * rows
                yield items[start : start + rows]


class _Share(BatchLists):
    """Every `world_size`-th of `videos` positions from `rank` on, in lists of `batch_size`; the last may be shorter."""

    def __init__(self, videos: int, batch_size: int, rank: int, world_size: int) -> None:
        positions = range(rank, videos, world_size)
        self.lists = [list(positions[first : first + batch_size]) for first in range(0, len(positions), batch_size)]

    def __len__(self) -> int:
        return len(self.lists)

    def after(self, batches: int) -> Iterator[list[int]]:
        """The lists from this batch on."""
        return iter(self.lists[batches:])


def evaluation_loader(
    dataset: VideoTextDataset,
    *,
    batch_size: int,
    rank: int,
    world_size: int,
    workers: int,
    sample_timeout: float = SAMPLE_TIMEOUT,
) -> WatchedLoader:
    """Every video once over all ranks: those at rank, rank + world_size, ...; `batch_size` is that of one process.

    The last batch may be smaller, and a rank may have none. What is not read within `sample_timeout` seconds, or ends
    its worker twice, counts as unreadable.
    """
    share = _Share(len(dataset), batch_size, rank, world_size)
    return WatchedLoader(dataset, share, collate, workers=workers, sample_timeout=sample_timeout)
