"""Training on several sets of pairs: which rows an epoch shows, in which order, and in which batches.

Everything follows from (seed, epoch) and the sizes of the sets and batches; ranks and workers play no role. So any step
of any epoch can be computed on its own, and a resumed run sees the same rows as an uninterrupted one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from datasets import sampling
from datasets.reading import Watched
from datasets.samples import Sample
from datasets.video_text import VideoTextDataset


class Item(NamedTuple):
    """One sample of one epoch: the row of a source, and the number that seeds its random choices."""

    epoch: int
    source: int
    row: int
    draw: int


@dataclass(frozen=True)
class Source:
    """One set of pairs in a mixture.

    Attributes:
        name: its file, for errors.
        weight: how often an epoch shows each row. With a fraction, an epoch shows that share of the rows, and each
            epoch takes other rows until all have been seen.
        batch_size: rows of one optimizer step over all processes, if each batch comes from one source.
    """

    name: str
    data: VideoTextDataset
    weight: float = 1.0
    batch_size: int | None = None

    @cached_property
    def rows_per_epoch(self) -> int:
        """How many rows an epoch shows, unless another source ends the epoch."""
        return round(self.weight * len(self.data))

    def rows(self, seed: int, epoch: int, number: int, count: int) -> NDArray:
        """(count,) the rows of an epoch, in no order that matters; `number` is the position of the source.

        Every epoch shows `count` rows. Think of an endless sequence of permutations of all rows, one per lap: an epoch
        takes its next piece. So two rows are never shown a number of times that differs by more than one.
        """
        first, left, pieces = epoch * count, count, [np.empty(0, np.int64)]
        while left:
            # Where this epoch's next piece begins: the lap, and the position in it.
            lap, start = divmod(first, len(self.data))
            length = min(left, len(self.data) - start)

            # The order within an epoch does not matter here, so a whole lap needs no permutation.
            if length == len(self.data):
                pieces.append(np.arange(length))
            else:
                order = sampling.generator("rows", seed, lap, number).permutation(len(self.data))
                pieces.append(order[start : start + length])
            first, left = first + length, left - length

        return np.concatenate(pieces)


class Mixture(Dataset):
    """Several sources, whose samples share batches (`mixing="sample"`) or fill their own (`mixing="batch"`).

    Args:
        order: the order of the sources' own batches: `shuffled`, in proportion to how many batches each source has in
            an epoch, or in `turns`, one batch of each source after the other.
        epoch_source: with `turns`, the source that ends the epoch: its rows are shown once, or as often as its weight
            says. The others show the same number of batches, and restart when they run out of rows.
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

    def watch(self, line: Watched) -> None:
        """Report on this line of a worker which file is being read."""
        for source in self.sources:
            source.data.watch(line)

    def exclude(self, reasons: Mapping[str, str]) -> bool:
        """Stop opening these paths in every source, each for a reason; returns whether any of them is new."""
        return any([source.data.exclude(reasons) for source in self.sources])

    def batch_sizes(self, default: int) -> list[int]:
        """The rows of an optimizer step: for each source if it has its own batches, else one number for all."""
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
        """The full batches of an epoch: for each source if it has its own batches, else in all; `default` as above."""
        shown = self.rows_shown(default) if self.mixing == "batch" else [len(self)]
        return [rows // size for rows, size in zip(shown, self.batch_sizes(default), strict=True)]

    def steps(self, default: int, seed: int, epoch: int, first_step: int) -> Iterator[list[Item]]:
        """The items of each optimizer step of an epoch, from `first_step` on; an incomplete batch is dropped."""
        shown, sizes, counts = self.rows_shown(default), self.batch_sizes(default), self.steps_per_epoch(default)
        rows = [source.rows(seed, epoch, number, shown[number]) for number, source in enumerate(self.sources)]

        # Number the epoch's samples: first all samples of the first source, then of the second, and so on. Samples that
        # share batches are shuffled together, the others within their source.
        starts = np.cumsum([0, *shown])
        bounds = starts.tolist() if self.mixing == "batch" else [0, int(starts[-1])]
        orders = [
            bounds[number] + sampling.generator("order", seed, epoch, number).permutation(stop - bounds[number])
            for number, stop in enumerate(bounds[1:])
        ]

        # `done` counts the batches that each source has already given: what makes a resume cheap.
        turns = self._turns(counts, seed, epoch)
        done = np.bincount(turns[:first_step], minlength=len(counts))
        for turn in turns[first_step:]:
            places = orders[turn][done[turn] * sizes[turn] : (done[turn] + 1) * sizes[turn]]
            done[turn] += 1

            # Find the source of each sample from its number.
            owners = np.searchsorted(starts, places, side="right") - 1
            yield [
                Item(epoch, owner, int(rows[owner][place - starts[owner]]), place)
                for owner, place in zip(owners.tolist(), places.tolist(), strict=True)
            ]

    def _turns(self, counts: Sequence[int], seed: int, epoch: int) -> NDArray:
        """The source of each step of an epoch, given the number of batches of each source."""
        if self.order == "turns":
            return np.tile(np.arange(len(counts)), counts[self.epoch_source])
        turns = np.repeat(np.arange(len(counts)), counts)
        return sampling.generator("sources", seed, epoch).permutation(turns) if len(counts) > 1 else turns
