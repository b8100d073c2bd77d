"""Several sets of pairs as one to train on: which rows an epoch shows, in which order, and in whose batches.

All of it follows from (seed, epoch), the sizes of the sets and of their batches; neither ranks nor workers are known.
So any step of any epoch can be computed alone, and a resumed run sees what an uninterrupted one sees.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
        """How many rows an epoch shows, where no other source ends it."""
        return round(self.weight * len(self.data))

    def rows(self, seed: int, epoch: int, number: int, count: int) -> NDArray:
        """(count,) the rows of an epoch, in no order that matters; `number` is that of the source.

        Every epoch shows as many. They are cut, one after the other, out of an endless row of permutations, so that no
        row is shown more than once more often than another.
        """
        first, left, pieces = epoch * count, count, [np.empty(0, np.int64)]
        while left:
            # Each lap goes once through all rows.
            lap, start = divmod(first, len(self.data))
            length = min(left, len(self.data) - start)
            if length == len(self.data):
                pieces.append(np.arange(length))
            else:
                order = sampling.generator("rows", seed, lap, number).permutation(len(self.data))
                pieces.append(order[start : start + length])
            first, left = first + length, left - length

        return np.concatenate(pieces)


class Mixture(Dataset):
    """Sources whose samples share batches (`sample`), or that have batches of their own (`batch`).

    Args:
        order: of batches of their own: `shuffled` in proportion to how many each source has in an epoch, or in `turns`,
            one of each source after the other.
        epoch_source: where they take turns, the source whose rows an epoch shows once, or as often as its weight says.
            The others show as many batches, and begin again whenever they are at their end.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        mixing: Literal["sample", "batch"] = "sample",
        order: Literal["shuffled", "turns"] = "shuffled",
        epoch_source: int = 0,
    ) -> None:
        assert sources and (mixing == "batch" or all(source.batch_size is None for source in sources))
        assert mixing == "batch" or order == "shuffled"
        for source in sources:
            if not source.rows_per_epoch:
                raise ValueError(
                    f"data.sources: weight {source.weight} of {source.name} shows none of its {len(source.data)} rows; "
                    "raise it or remove the source"
                )
        self.sources, self.mixing, self.order, self.epoch_source = tuple(sources), mixing, order, epoch_source

    def __len__(self) -> int:
        return sum(source.rows_per_epoch for source in self.sources)

    def __getitem__(self, item: Item) -> Sample:
        sample = self.sources[item.source].data[item.epoch, item.row, item.draw]
        return replace(sample, source=item.source) if self.mixing == "batch" else sample

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

    def rows_shown(self, default: int) -> list[int]:
        """How many rows an epoch shows of each source; `default` as above."""
        shown = [source.rows_per_epoch for source in self.sources]
        if self.order == "shuffled":
            return shown

        sizes = self.batch_sizes(default)
        rounds = shown[self.epoch_source] // sizes[self.epoch_source]
        return [
            rows if number == self.epoch_source else rounds * size
            for number, (rows, size) in enumerate(zip(shown, sizes, strict=True))
        ]

    def steps_per_epoch(self, default: int) -> list[int]:
        """The whole batches of an epoch, of each source where batches are of one source; `default` as above."""
        shown = self.rows_shown(default) if self.mixing == "batch" else [len(self)]
        return [rows // size for rows, size in zip(shown, self.batch_sizes(default), strict=True)]

    def steps(self, default: int, seed: int, epoch: int, first_step: int) -> Iterator[list[Item]]:
        """The items of each optimizer step of an epoch from one on; what does not fill a batch is left out."""
        shown, sizes, counts = self.rows_shown(default), self.batch_sizes(default), self.steps_per_epoch(default)
        rows = [source.rows(seed, epoch, number, shown[number]) for number, source in enumerate(self.sources)]

        # Places of the epoch: those of the first source, of the second, and so on. Samples that share batches are
        # shuffled together, others source by source.
        starts = np.cumsum([0, *shown])
        bounds = starts.tolist() if self.mixing == "batch" else [0, int(starts[-1])]
        orders = [
            bounds[number] + sampling.generator("order", seed, epoch, number).permutation(stop - bounds[number])
            for number, stop in enumerate(bounds[1:])
        ]

        turns = self._turns(counts, seed, epoch)
        done = np.bincount(turns[:first_step], minlength=len(counts))
        for turn in turns[first_step:]:
            places = orders[turn][done[turn] * sizes[turn] : (done[turn] + 1) * sizes[turn]]
            done[turn] += 1
            owners = np.searchsorted(starts, places, side="right") - 1
            yield [
                Item(epoch, owner, int(rows[owner][place - starts[owner]]), place)
                for owner, place in zip(owners.tolist(), places.tolist(), strict=True)
            ]

    def _turns(self, counts: Sequence[int], seed: int, epoch: int) -> NDArray:
        """Whose batch each step of an epoch has, given how many each source has."""
        if self.order == "turns":
            return np.tile(np.arange(len(counts)), counts[self.epoch_source])
        turns = np.repeat(np.arange(len(counts)), counts)
        return sampling.generator("sources", seed, epoch).permutation(turns) if len(counts) > 1 else turns
