"""Ground truth of retrieval: which texts and videos belong together, many to many."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Relation:
    """The relevant candidates of each query, as compressed sparse rows: memory grows with the pairs, not with Q x N.

    Attributes:
        starts: (Q + 1,), where each query's candidates begin in `members`; the last entry is their total.
        members: the relevant candidates, query by query, ascending within each.
        num_candidates: N, how many candidates there are.
    """

    starts: NDArray
    members: NDArray
    num_candidates: int

    @classmethod
    def of_pairs(cls, queries: NDArray, candidates: NDArray, num_queries: int, num_candidates: int) -> "Relation":
        """The relation of pairs (P,) and (P,), in any order; duplicate pairs count once."""
        queries, candidates = np.asarray(queries, np.int64), np.asarray(candidates, np.int64)
        assert len(queries) == len(candidates), "a query and a candidate make a pair"

        # Encode each pair as one number; sorting these numbers sorts by query, then by candidate.
        pairs = np.unique(queries * num_candidates + candidates)
        counts = np.bincount(pairs // num_candidates, minlength=num_queries) if len(pairs) else np.zeros(num_queries)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

        return cls(starts, pairs % num_candidates if len(pairs) else pairs, num_candidates)

    @classmethod
    def of_one_each(cls, candidate_of_query: NDArray, num_candidates: int) -> "Relation":
        """The relation with one relevant candidate (Q,) per query; -1 where it is unknown."""
        candidate_of_query = np.asarray(candidate_of_query, np.int64)
        known = np.flatnonzero(candidate_of_query >= 0)
        return cls.of_pairs(known, candidate_of_query[known], len(candidate_of_query), num_candidates)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def transposed(self) -> "Relation":
        """The same pairs, with candidates as queries."""
        queries = np.repeat(np.arange(len(self)), np.diff(self.starts))
        return Relation.of_pairs(self.members, queries, self.num_candidates, len(self))

    def rows(self, tile: slice) -> NDArray:
        """Bool (q, N): which candidates are relevant to each query of a tile."""
        first, stop, _ = tile.indices(len(self))
        starts = self.starts[first : stop + 1]
        queries = np.repeat(np.arange(stop - first), np.diff(starts))

        relevant = np.zeros((stop - first, self.num_candidates), dtype=bool)
        relevant[queries, self.members[starts[0] : starts[-1]]] = True
        return relevant
