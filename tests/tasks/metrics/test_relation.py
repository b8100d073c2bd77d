"""Which texts and videos belong together, against a dense array of booleans."""

import numpy as np
import pytest

from tasks.metrics.relation import Relation


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
def test_rows_are_those_of_the_array_in_both_directions(share: float) -> None:
    rng = np.random.default_rng(int(share * 10))
    for _ in range(20):
        num_queries, num_candidates = (int(count) for count in rng.integers(1, 9, 2))
        array = rng.random((num_queries, num_candidates)) < share
        queries, candidates = np.nonzero(array)
        order = rng.permutation(len(queries))
        # In any order, and some of them twice.
        relation = Relation.of_pairs(
            *(np.concatenate([side[order], side[:2]]) for side in (queries, candidates)), num_queries, num_candidates
        )

        assert len(relation) == num_queries and len(relation.members) == array.sum()
        assert np.array_equal(relation.rows(slice(None)), array)
        assert np.array_equal(relation.transposed().rows(slice(None)), array.T)
        first = int(rng.integers(num_queries))
        assert np.array_equal(relation.rows(slice(first, first + 3)), array[first : first + 3])


def test_one_candidate_each() -> None:
    relation = Relation.of_one_each(np.array([2, 0, -1, 2]), 3)
    expected = [[False, False, True], [True, False, False], [False, False, False], [False, False, True]]
    assert relation.rows(slice(0, 9)).tolist() == expected
