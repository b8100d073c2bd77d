"""Retrieval metrics in both directions, from embeddings and matching logits; recalls in percent, ranks from 1.

The full score matrix never exists: each direction computes it one tile of queries at a time.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.ranks import rank_statistics
from tasks.metrics.relation import Relation

AVERAGED_RECALLS = ("r1", "r5", "r10")
"""The recalls whose mean is the mean recall."""
SCORES_AT_ONCE = 2**18
"""Scores in a tile: 2 MB per float64 array, or more if a single query needs more."""


@dataclass(frozen=True)
class Direction:
    """Queries that each rank all candidates: texts that look for videos, or videos for texts.

    Attributes:
        name: `t2v` or `v2t`, the prefix of its metrics.
        queries, candidates: unit-length embeddings (Q, E) and (N, E), float64.
        relevant: which candidates each query looks for.
    """

    name: str
    queries: NDArray
    candidates: NDArray
    relevant: Relation

    def tiles(self) -> list[slice]:
        """Slices that cover all queries."""
        size = max(1, SCORES_AT_ONCE // len(self.candidates))
        return [slice(first, first + size) for first in range(0, len(self.queries), size)]

    def cosine(self, tile: slice) -> NDArray:
        """Cosines (q, N), float32.

        Sums are float64, rounded once, so that equal embeddings get equal cosines in any tile and direction.
        """
        return (self.queries[tile] @ self.candidates.T).astype(np.float32)

    def shortlist(self, tile: slice, most: int) -> NDArray:
        """The candidates (q, k) with the largest cosines, see `shortlist`."""
        return shortlist(self.cosine(tile), most)

    def log_totals(self, tile: slice, scale: float) -> NDArray:
        """The logarithm (q,) of each query's sum over all candidates of exp(scale * cosine), float64."""
        scaled = scale * self.cosine(tile).astype(np.float64)
        most = scaled.max(axis=1, keepdims=True)
        return most[:, 0] + np.log(np.exp(scaled - most).sum(axis=1))

    def dual_softmax(self, tile: slice, log_totals_N: NDArray, scale: float) -> NDArray:
        """Scores (q, N), float64: each cosine times its softmax over all queries.

        It favours candidates that no other query claims. `log_totals_N` are the other direction's, whose queries are
        these candidates, so that all queries enter without the full matrix.
        """
        cosine = self.cosine(tile).astype(np.float64)
        return cosine * np.exp(scale * cosine - log_totals_N)

    def best_ranks(self, tile: slice, scores: NDArray) -> NDArray:
        """The rank (q,) of each query's best relevant candidate by scores (q, N)."""
        return best_ranks(scores, self.relevant.rows(tile))


def both_directions(texts: NDArray, videos: NDArray, truth: Relation) -> tuple[Direction, Direction]:
    """Text-to-video and video-to-text retrieval from embeddings (T, E) and (V, E); `truth` has texts as queries."""
    assert (len(truth), truth.num_candidates) == (len(texts), len(videos)), "ground truth of these texts and videos"
    texts, videos = texts.astype(np.float64), videos.astype(np.float64)
    return Direction("t2v", texts, videos, truth), Direction("v2t", videos, texts, truth.transposed())


def best_ranks(scores: NDArray, relevant: NDArray) -> NDArray:
    """Rank (Q,), from 1, of each query's best relevant candidate in scores (Q, N); `relevant` (Q, N) is bool.

    Ties and NaN scores count against us: every irrelevant candidate that does not score less than the best relevant
    one ranks before it.
    """
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    return 1 + (~relevant & ~(scores < best)).sum(axis=1)


def rerank(cosine: NDArray, rescored: NDArray, chosen: NDArray) -> NDArray:
    """Scores (Q, N) that put the `chosen` candidates first, by `rescored`, and the others after them, by cosine."""
    # fmin ignores NaN scores, so that they do not spread to the other candidates of the row.
    floor = np.fmin.reduce(np.where(chosen, rescored, np.inf), axis=1, keepdims=True)
    floor = np.where(np.isfinite(floor), floor, 0.0)
    # Cosines lie in [-1, 1]: shifted by -3, all of them stay below the worst chosen candidate.
    return np.where(chosen, rescored, cosine.astype(np.float64) + floor - 3)


def shortlist(cosine: NDArray, most: int) -> NDArray:
    """The `most` best candidates of each query (Q, k), in ascending order, or all; ties go to the smaller index."""
    most = min(most, cosine.shape[1])
    distance = np.where(np.isnan(cosine), np.inf, -cosine)  # NaN comes last

    # Take all candidates nearer than the k-th distance, and fill up with tied ones by index.
    last = np.partition(distance, most - 1, axis=1)[:, most - 1 : most]
    nearer, tied = distance < last, distance == last
    room = most - nearer.sum(axis=1, keepdims=True)
    chosen = nearer | (tied & (tied.cumsum(axis=1, dtype=np.int32) <= room))
    return np.nonzero(chosen)[1].reshape(len(cosine), most).astype(np.int32)


def recalls(ranks: NDArray, direction: str, suffix: str = "") -> dict[str, float]:
    """The statistics of ranks (Q,), named `t2v_r1` and so on (`rank_statistics`), and the mean recall.

    `t2v_mean_recall` is the mean of the recalls at 1, 5 and 10. Recalls and their means are percentages.
    """
    statistics = rank_statistics(ranks)
    statistics["mean_recall"] = sum(statistics[name] for name in AVERAGED_RECALLS) / len(AVERAGED_RECALLS)
    return {f"{direction}_{name}{suffix}": value for name, value in statistics.items()}
