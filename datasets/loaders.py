"""Batches: the order follows from (seed, epoch) alone, and each rank takes its rows of every batch."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from datasets.mixing import Item, Mixture, Source
from datasets.reading import Told
from datasets.samples import collate
from datasets.video_text import VideoTextDataset
from datasets.watching import BatchLists, WatchedLoader

Batch = dict[str, Any]
SAMPLE_TIMEOUT = 120.0
"""Seconds; the default of `train.sample_timeout`."""


class TrainLoader:
    """Micro-batches of one rank; a step sees the same rows with any number of workers and ranks.

    `batch_size` counts the rows of one optimizer step over all ranks; a source of a mixture may set its own.
    `accumulate` cuts a batch into that many micro-batches. The rows of all ranks in a micro-batch, one after the other,
    are the rows that a single process would get. Workers stay alive between epochs. An incomplete last batch is
    dropped.

    A video is excluded if it is not read within `sample_timeout` seconds, or if it kills two workers. Like an
    unreadable one, it is replaced by another row, which follows from (seed, epoch, draw) and the excluded videos.

    ValueError if sizes do not divide, or if the data, or a source with its own batches, do not fill a single batch.
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
        """The micro-batches of an epoch, starting at a step; ends the iterator of the previous epoch."""
        self._batches.epoch, self._batches.first_step = epoch, first_step
        return iter(self._loader)

    def exclude(self, videos: Iterable[str]) -> None:
        """Stop opening these files from the next epoch on: they hung or killed a worker of another process."""
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

        # A source that does not end the epoch restarts as often as needed, but never within a batch.
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
    """The items of one rank, one list per micro-batch, for `epoch` from `first_step` on."""

    def __init__(
        self, mixture: Mixture, batch_size: int, accumulate: int, seed: int, rank: int, world_size: int
    ) -> None:
        self.mixture, self.batch_size, self.accumulate, self.seed = mixture, batch_size, accumulate, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first_step = 0, 0

    def after(self, batches: int) -> Iterator[list[Item]]:
        """The lists from this micro-batch on, counted from `first_step`."""
        # Full steps can be skipped without computing them; the micro-batches of the first one are dropped.
        steps, parts = divmod(batches, self.accumulate)
        return islice(self._of_epoch(self.epoch, self.first_step + steps), parts, None)

    def _of_epoch(self, epoch: int, first_step: int) -> Iterator[list[Item]]:
        for items in self.mixture.steps(self.batch_size, self.seed, epoch, first_step):
            # A batch is laid out by micro-batch, then by rank.
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
    timeout_per_frame: bool = False,
    tell: Told | None = None,
) -> WatchedLoader:
    """Every video once over all ranks: those at rank, rank + world_size, ...; `batch_size` is per process.

    The last batch may be smaller, and a rank may have no batch. A video that is not read within `sample_timeout`
    seconds, or that kills two workers, counts as unreadable; `timeout_per_frame` and `tell` as for `WatchedLoader`.
    """
    share = _Share(len(dataset), batch_size, rank, world_size)
    return WatchedLoader(
        dataset,
        share,
        collate,
        workers=workers,
        sample_timeout=sample_timeout,
        timeout_per_frame=timeout_per_frame,
        tell=tell,
    )
