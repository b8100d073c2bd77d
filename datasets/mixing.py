"""Several sets of pairs as one to train on: which rows an epoch shows, in which order, and in whose batches.

All of it follows from (seed, epoch), the sizes of the sets and of their batches; neither ranks nor workers are known.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from datasets import sampling
from datasets.reading import Line
from datasets.samples import Sample
from datasets.video_text import VideoTextDataset


class Item(NamedTuple):
    """One sample of one epoch: the row of a source, and the number that its randomness follows from."""

    epoch: int
    source: int
    row: int
    draw: int


@dataclass(frozen=True)
class Source:
    """One set of pairs in a mixture.

    Attributes:
        name: its file, for errors.
        weight: how often an epoch shows each row. Of a fraction, each epoch shows as many rows as that makes, other
            ones every time until all have been seen.
        batch_size: rows of one optimizer step over all processes, where batches are of one source.
    """

    name: str
    data: VideoTextDataset
    weight: float = 1.0
    batch_size: int | None = None

    @cached_property
    def rows_per_epoch(self) -> int:
        """How many rows an epoch shows."""
        return round(self.weight * len(self.data))

    def rows(self, seed: int, epoch: int, number: int) -> NDArray:
        """(rows_per_epoch,) the rows of an epoch, in no order that matters; `number` is that of the source.

        Epochs one after the other cut an endless row of permutations into pieces, so that no row is shown more than
        once more often than another.
        """
        first, left, pieces = epoch * self.rows_per_epoch, self.rows_per_epoch, [np.empty(0, np.int64)]
        while left:
            lap, start = divmod(first, len(self.data))
            count = min(left, len(self.data) - start)
            if count == len(self.data):
                pieces.append(np.arange(count))
            else:
                order = sampling.generator("rows", seed, lap, number).permutation(len(self.data))
                pieces.append(order[start : start + count])
            first, left = first + count, left - count
        return np.concatenate(pieces)


class Mixture(Dataset):
    """Sources whose samples share batches (`sample`), or take turns in batches of their own (`batch`)."""

    def __init__(self, sources: Sequence[Source], mixing: Literal["sample", "batch"] = "sample") -> None:
        assert sources and (mixing == "batch" or all(source.batch_size is None for source in sources))
        for source in sources:
            if not source.rows_per_epoch:
                raise ValueError(
                    f"data.sources: weight {source.weight} of {source.name} shows none of its {len(source.data)} rows; "
                    "raise it or remove the source"
                )
        self.sources, self.mixing = tuple(sources), mixing
        self._starts = np.cumsum([0] + [source.rows_per_epoch for source in sources])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, item: Item) -> Sample:
        return self.sources[item.source].data[item.epoch, item.row, item.draw]

    def watch(self, line: Line) -> None:
        """Have on this line of a worker's which file is read."""
        for source in self.sources:
            source.data.watch(line)

    def exclude(self, reasons: Mapping[str, str]) -> bool:
        """Open these paths no more, each for a reason, in whichever source; whether any of them is new."""
        return any([source.data.exclude(reasons) for source in self.sources])

    def batch_sizes(self, default: int) -> list[int]:
        """The rows of an optimizer step of each source where batches are of one source; else of any step."""
        return [source.batch_size or default for source in self.sources] if self.mixing == "batch" else [default]

    def steps_per_epoch(self, default: int) -> list[int]:
        """The whole batches of an epoch, of each source where batches are of one source; `default` as above."""
        sizes = self.batch_sizes(default)
        shown = [source.rows_per_epoch for source in self.sources] if self.mixing == "batch" else [len(self)]
        return [rows // size for rows, size in zip(shown, sizes, strict=True)]

    def steps(self, default: int, seed: int, epoch: int, first_step: int) -> Iterator[list[Item]]:
        """The items of each optimizer step of an epoch from one on; what does not fill a batch is left out."""
        rows = [source.rows(seed, epoch, number) for number, source in enumerate(self.sources)]
        sizes, counts = self.batch_sizes(default), self.steps_per_epoch(default)
        starts = self._starts[: len(counts)].tolist()
        # Places 0 ... len(self) - 1 of the epoch: those of the first source, of the second, and so on.
        orders = [
            start + sampling.generator("order", seed, epoch, number).permutation(stop - start)
            for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(self)], strict=True))
        ]
        turns = np.repeat(np.arange(len(counts)), counts)
        if len(counts) > 1:
            turns = sampling.generator("sources", seed, epoch).permutation(turns)
        done = np.bincount(turns[:first_step], minlength=len(counts))
        for turn in turns[first_step:]:
            places = orders[turn][done[turn] * sizes[turn] : (done[turn] + 1) * sizes[turn]]
            done[turn] += 1
            owners = np.searchsorted(self._starts, places, side="right") - 1
            yield [
                Item(epoch, owner, int(rows[owner][place - self._starts[owner]]), place)
                for owner, place in zip(owners.tolist(), places.tolist(), strict=True)
            ]
