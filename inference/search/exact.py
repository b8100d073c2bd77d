"""Exact search in blocks: float16 copies choose candidates, the stored float32 vectors bring them into order.

The result is that of scoring every stored vector, whatever the size of a block. A row's *score* is its dot product with
the query: float64 sums, rounded once to float32. The scan only sees an *estimate*: the float32 product of the query and
the row's float16 copy. Each estimate is within a known margin m of the score, so with t the k-th largest estimate

    k rows have a score of at least t - m, and a row whose estimate is below t - 2m has a smaller score than these.

Rows from t - 2m on are therefore all that can be among the best k. Few rows are that near to each other: they are read
again in float32, scored, and sorted; ties go to the smaller row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

ROWS_AT_ONCE = 4096
"""Rows of a block: 4 MB of float32 at width 256, which the caches of a core hold."""
SPARSE = 16
"""Where fewer than one row in so many passes a filter, rows are read one by one."""
ROWS_SCORED = 2048
"""Rows scored in float64 at a time."""
UNIT_ROUNDOFF = 2.0**-24
"""Of float32."""
LARGEST_HALF = 65504.0


class Found(NamedTuple):
    """The best rows (k,) of one query, best first, and their scores (k,) float32."""

    rows: NDArray
    scores: NDArray


@dataclass(frozen=True)
class Vectors:
    """Stored vectors, and the copies that a scan reads instead.

    Attributes:
        stored: (V, E) float32, perhaps memory-mapped.
        half: (V, E) float16 copies; None to scan the stored vectors themselves.
        rounding: the largest length of the difference between a stored vector and its copy.
        known_norm: the largest length of a stored vector; None to find it when it is first needed.
    """

    stored: NDArray
    half: NDArray | None = None
    rounding: float = 0.0
    known_norm: float | None = None

    def __len__(self) -> int:
        return len(self.stored)

    @cached_property
    def norm(self) -> float:
        """The largest length of a stored vector."""
        return largest_norm(self.stored) if self.known_norm is None else self.known_norm

    def margin(self, query: NDArray) -> float:
        """The most by which an estimate and the score of the same row can differ.

        By Cauchy and Schwarz a copy changes the product by at most |query| * |stored - copy|. A float32 sum of n
        products is off by at most n u / (1 - n u) * |query| * |copy| in any order of summation, with u the unit
        roundoff; two more u cover the rounding of the score.
        """
        steps = (self.stored.shape[1] + 2) * UNIT_ROUNDOFF
        length = float(np.linalg.norm(query.astype(np.float64)))
        return length * (self.rounding + steps / (1 - steps) * (self.norm + self.rounding))

    def estimates(self, rows: NDArray | slice, queries: NDArray, room: NDArray | None = None) -> NDArray:
        """The estimates (r, Q) float32 of some rows with queries (Q, E) float32; NaN is the lowest of all.

        `room` (>= r, E) float32 is written to, which saves the memory of a block.
        """
        block = self.stored[rows]
        if self.half is not None:
            copies = self.half[rows] if isinstance(rows, slice) else np.take(self.half, rows, axis=0)
            block = np.empty(copies.shape, np.float32) if room is None else room[: len(copies)]
            # torch reads float16 many times faster than numpy, but only from arrays that could be written.
            writable = copies if copies.flags.writeable else copies.copy()
            torch.from_numpy(block).copy_(torch.from_numpy(np.asarray(writable)))

        estimates = block @ queries.T
        if np.isnan(estimates).any():
            estimates = np.where(np.isnan(estimates), np.float32(-np.inf), estimates)
        return estimates

    def scores(self, rows: NDArray, query: NDArray) -> NDArray:
        """The scores (r,) float32 of some rows with a query (E,)."""
        scores = np.empty(len(rows), np.float32)
        query = query.astype(np.float64)
        for first in range(0, len(rows), ROWS_SCORED):
            some = slice(first, first + ROWS_SCORED)
            # Not `@`: BLAS may add up a row differently beside other rows. numpy sums each row alone.
            scores[some] = (self.stored[rows[some]].astype(np.float64) * query).sum(axis=1)
        return scores

    def in_order(self, rows: NDArray, query: NDArray, most: int, group: NDArray | None = None) -> Found:
        """The best of some rows by score, in order; with `group` (V,), the best row of each group alone."""
        rows = np.sort(rows)
        scores = self.scores(rows, query)
        order = np.argsort(np.where(np.isnan(scores), np.inf, -scores), kind="stable")
        if group is not None:
            _, first_of_group = np.unique(group[rows[order]], return_index=True)
            order = order[np.sort(first_of_group)]
        order = order[:most]
        return Found(rows[order], scores[order])


def search(
    vectors: Vectors,
    queries: NDArray,
    most: int,
    allowed: NDArray | None = None,
    group: NDArray | None = None,
    rows_at_once: int = ROWS_AT_ONCE,
) -> list[Found]:
    """The best `most` rows for each query (Q, E), by comparing it with all vectors.

    Args:
        allowed: the rows (R,) to compare, ascending; None for all.
        group: the number (V,) of each row's video, to find each video once, by its best row.
    """
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    candidates = [_Candidates(most, 2 * vectors.margin(query)) for query in queries]
    total = len(vectors)
    room = None if vectors.half is None else np.empty((min(total, rows_at_once), queries.shape[1]), np.float32)

    for rows, read in _blocks(total, allowed, rows_at_once):
        estimates = vectors.estimates(read, queries, room)
        if isinstance(read, slice) and len(rows) < len(estimates):
            estimates = estimates[rows - read.start]
        for number, found in enumerate(candidates):
            found.add(rows, estimates[:, number], group)

    return [vectors.in_order(found.rows, query, most, group) for found, query in zip(candidates, queries, strict=True)]


def _blocks(total: int, allowed: NDArray | None, rows_at_once: int) -> Iterator[tuple[NDArray, slice | NDArray]]:
    """The rows of each block, ascending, and what to read for them: a stretch that holds them, or these rows alone.

    Reading on is faster than reading single rows, so a stretch is read where a fair share of its rows is wanted.
    """
    if allowed is None:
        for first in range(0, total, rows_at_once):
            last = min(first + rows_at_once, total)
            yield np.arange(first, last), slice(first, last)
        return

    position = 0
    while position < len(allowed):
        first = int(allowed[position])
        last = min(first + rows_at_once, total)
        next_position = int(np.searchsorted(allowed, last))
        if (next_position - position) * SPARSE >= last - first:
            yield allowed[position:next_position], slice(first, last)
        else:
            next_position = position + rows_at_once
            yield allowed[position:next_position], allowed[position:next_position]
        position = next_position


class _Candidates:
    """The rows that can still be among the best `most`, given the estimates seen so far."""

    def __init__(self, most: int, slack: float) -> None:
        self.most, self.slack = most, slack
        self.rows, self.estimates = np.empty(0, np.int64), np.empty(0, np.float32)
        self.least = -np.inf

    def add(self, rows: NDArray, estimates: NDArray, group: NDArray | None) -> None:
        """See the estimates (r,) of more rows (r,)."""
        near = np.flatnonzero(estimates >= self.least)
        if not len(near):
            return
        self.rows = np.concatenate([self.rows, rows[near]])
        self.estimates = np.concatenate([self.estimates, estimates[near]])

        # The k-th largest estimate only grows, so what is dropped here never comes back.
        best = self.estimates if group is None else _largest_of_groups(self.estimates, group[self.rows])
        if len(best) >= self.most:
            kth = np.partition(best, len(best) - self.most)[len(best) - self.most]
            self.least = float(kth) - self.slack if np.isfinite(self.slack) else -np.inf
            kept = self.estimates >= self.least
            self.rows, self.estimates = self.rows[kept], self.estimates[kept]


def _largest_of_groups(values: NDArray, group: NDArray) -> NDArray:
    """The largest value of each group that occurs."""
    order = np.lexsort((-values, group))
    _, first_of_group = np.unique(group[order], return_index=True)
    return values[order][first_of_group]


def largest_norm(stored: NDArray) -> float:
    """The largest length of any row (V, E); 0 if there are none."""
    largest = 0.0
    for first in range(0, len(stored), ROWS_AT_ONCE):
        block = stored[first : first + ROWS_AT_ONCE].astype(np.float64)
        largest = max(largest, float(np.sqrt(np.nanmax((block * block).sum(axis=1), initial=0.0))))
    return largest


def halve(stored: NDArray, half: NDArray) -> tuple[float, float] | None:
    """Write float16 copies of `stored` (V, E) into `half`; returns the largest rounding and the largest length.

    None if a value is too large for float16: then there is no copy to scan.
    """
    rounding, norm = 0.0, 0.0
    for first in range(0, len(stored), ROWS_AT_ONCE):
        block = np.asarray(stored[first : first + ROWS_AT_ONCE], np.float32)
        if np.nanmax(np.abs(block), initial=0.0) > LARGEST_HALF:
            return None
        copy = block.astype(np.float16)
        half[first : first + ROWS_AT_ONCE] = copy

        exact = block.astype(np.float64)
        difference = exact - copy.astype(np.float64)
        rounding = max(rounding, float(np.sqrt(np.nanmax((difference * difference).sum(axis=1), initial=0.0))))
        norm = max(norm, float(np.sqrt(np.nanmax((exact * exact).sum(axis=1), initial=0.0))))
    return rounding, norm
