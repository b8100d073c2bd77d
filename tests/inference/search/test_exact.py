"""The blocked search over float16 copies finds what scoring every float32 vector finds, in the same order."""

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.search.exact import Found, Vectors, halve, largest_norm, search

MOST = 1000


def close_vectors(count: int, width: int, lengths: tuple[float, float] = (1.0, 1.0)) -> NDArray:
    """Clustered vectors, many of them nearer to each other than float16 can tell, and some equal ones."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((20, width))
    rows = centres[random.integers(0, 20, count)] + 1e-3 * random.standard_normal((count, width))
    rows *= random.uniform(*lengths, (count, 1)) / np.linalg.norm(rows, axis=1, keepdims=True)
    rows[count // 2 :: 7] = rows[3]
    return rows.astype(np.float32)


def halved(stored: NDArray) -> Vectors:
    half = np.empty(stored.shape, np.float16)
    margins = halve(stored, half)
    assert margins is not None
    return Vectors(stored, half, *margins)


def brute_force(stored: NDArray, query: NDArray, most: int, rows: NDArray | None = None) -> tuple[list[int], NDArray]:
    scores = np.array([np.dot(row, query.astype(np.float64)) for row in stored.astype(np.float64)]).astype(np.float32)
    order = np.lexsort((np.arange(len(scores)), -scores))
    order = order if rows is None else order[np.isin(order, rows)]
    return order[:most].tolist(), scores


@pytest.mark.parametrize("lengths", [(1.0, 1.0), (0.3, 2.0)])
def test_the_best_thousand_are_those_of_float32_in_their_order(lengths: tuple[float, float]) -> None:
    stored = close_vectors(20_000, 64, lengths)
    queries = close_vectors(40, 64)[:5] * np.float32(1.7)
    vectors = halved(stored)
    found = search(vectors, queries, MOST)
    for query, best in zip(queries, found, strict=True):
        expected, scores = brute_force(stored, query, MOST)
        assert best.rows.tolist() == expected
        np.testing.assert_array_equal(best.scores, scores[expected])

        # Float16 alone would not do.
        by_half = np.argsort(-(vectors.half.astype(np.float32) @ query), kind="stable")[:MOST]  # type: ignore[union-attr]
        assert by_half.tolist() != expected


@pytest.mark.parametrize("has_half", [True, False])
def test_any_size_of_block_gives_the_same_bits(has_half: bool) -> None:
    stored = close_vectors(3000, 48)
    vectors, queries = halved(stored) if has_half else Vectors(stored), stored[:3]
    dense_and_sparse = np.concatenate([np.arange(0, 1500, 2), np.arange(1500, 2000, 100), np.arange(2700, 3000)])
    for rows in (None, np.arange(0, 3000, 3), dense_and_sparse):
        once: list[Found] = search(vectors, queries, 100, rows, rows_at_once=10**6)
        assert once[0].rows.tolist() == brute_force(stored, queries[0], 100, rows)[0]
        for size in (1, 7, 1000):
            for one, other in zip(once, search(vectors, queries, 100, rows, rows_at_once=size), strict=True):
                assert one.rows.tobytes() == other.rows.tobytes() and one.scores.tobytes() == other.scores.tobytes()


def test_estimates_stay_within_the_margin() -> None:
    stored = close_vectors(4000, 256, (0.1, 3.0))
    for vectors in (halved(stored), Vectors(stored)):
        for query in (stored[5], -4 * stored[6]):
            estimates = vectors.estimates(slice(None), query[None])[:, 0].astype(np.float64)
            exact = vectors.scores(np.arange(len(stored)), query).astype(np.float64)
            difference = np.abs(estimates - exact).max()
            assert difference <= vectors.margin(query)
    assert vectors.norm == pytest.approx(largest_norm(stored)) == pytest.approx(3.0, rel=1e-3)


def test_each_video_is_found_once_by_its_best_row() -> None:
    stored = close_vectors(5000, 32)
    group = np.random.default_rng(1).integers(0, 700, 5000).astype(np.int32)
    for query in stored[:3]:
        order, scores = brute_force(stored, query, 5000)
        expected = list({int(group[row]): row for row in reversed(order)}.values())
        expected = sorted(expected, key=lambda row: (-scores[row], row))
        for most in (10, 10_000):
            (best,) = search(halved(stored), query[None], most, group=group, rows_at_once=300)
            assert best.rows.tolist() == expected[:most]


def test_vectors_that_are_no_numbers_come_last_and_large_ones_are_not_copied() -> None:
    stored = close_vectors(50, 8)
    stored[4, 2] = np.nan
    (best,) = search(halved(stored), stored[:1], 50)
    assert best.rows[-1] == 4 and len(best.rows) == 50
    assert search(halved(stored), stored[:1], 49)[0].rows.tolist() == best.rows[:-1].tolist()
    stored[5, 1] = 1e6
    assert halve(stored, np.empty(stored.shape, np.float16)) is None
    assert (
        search(Vectors(stored), -stored[5:6], 3)[0].rows.tolist()
        == brute_force(np.nan_to_num(stored), -stored[5], 3)[0]
    )


def test_nothing_to_compare_finds_nothing() -> None:
    vectors = halved(close_vectors(50, 8))
    (best,) = search(vectors, vectors.stored[:1], 5, np.empty(0, np.int64))
    assert best.rows.tolist() == [] and best.scores.dtype == np.float32
