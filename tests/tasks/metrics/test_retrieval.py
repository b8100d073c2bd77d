"""Ranks, recalls and reranking against plain loops over candidates."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.metrics.retrieval import best_ranks, both_directions, recalls, rerank, shortlist


def rank_by_hand(scores: NDArray, relevant: NDArray) -> list[int]:
    """Best relevant candidate's place, from 1, when every irrelevant one of an equal score stands before it."""
    ranks = []
    for row, wanted in zip(scores, relevant, strict=True):
        best = max(score for score, is_wanted in zip(row, wanted, strict=True) if is_wanted)
        ranks.append(1 + sum(score >= best for score, is_wanted in zip(row, wanted, strict=True) if not is_wanted))
    return ranks


@pytest.mark.parametrize("levels", [3, 1000])
def test_best_ranks_are_those_of_a_loop_also_with_many_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for _ in range(20):
        queries, candidates = rng.integers(1, 9, 2)
        scores = rng.integers(0, levels, (queries, candidates)) / levels
        relevant = rng.random((queries, candidates)) < 0.3
        relevant[np.arange(queries), rng.integers(0, candidates, queries)] = True
        assert best_ranks(scores, relevant).tolist() == rank_by_hand(scores, relevant)


def test_ties_count_against_us() -> None:
    assert best_ranks(np.array([[0.5, 0.5, 0.5, 0.1]]), np.eye(4, dtype=bool)[:1]).tolist() == [3]
    # A model that gives every pair the same score finds nothing.
    assert best_ranks(np.zeros((4, 4)), np.eye(4, dtype=bool)).tolist() == [4, 4, 4, 4]


def test_scores_that_are_no_numbers_count_against_us() -> None:
    scores = np.array([[np.nan, 0.1, 0.2], [0.1, np.nan, 0.9], [0.3, 0.2, 0.4]])
    assert best_ranks(scores, np.eye(3, dtype=bool)).tolist() == [3, 3, 1]
    wrong_one = np.array([[0.9, np.nan, 0.1]])
    assert best_ranks(wrong_one, np.array([[True, False, False]])).tolist() == [2]


def test_recalls_in_percent() -> None:
    assert recalls(np.array([1, 1, 3, 7, 30]), "t2v") == {
        "t2v_r1": 40.0, "t2v_r5": 60.0, "t2v_r10": 80.0, "t2v_mean_recall": 60.0, "t2v_median_rank": 3.0,
    }  # fmt: skip
    found = recalls(np.array([2, 11]), "v2t", "_cosine")
    assert found == {
        "v2t_r1_cosine": 0.0, "v2t_r5_cosine": 50.0, "v2t_r10_cosine": 50.0,
        "v2t_mean_recall_cosine": pytest.approx(100 / 3), "v2t_median_rank_cosine": 6.5,
    }  # fmt: skip


def test_a_video_of_several_captions_takes_the_best_of_them() -> None:
    text_video = np.array([0, 0, 1])
    v2t = np.array([[0.1, 0.9, 0.5], [0.8, 0.7, 0.75]])  # video 0: its second caption is first; video 1: second
    t2v = np.array([[0.2, 0.9], [0.9, 0.2], [0.1, 0.2]])  # text 0: second; texts 1 and 2: first
    found = both_directions(t2v, v2t, text_video)
    assert (found["v2t_r1"], found["v2t_median_rank"]) == (50.0, 1.5)
    assert (found["t2v_r1"], found["t2v_r5"]) == (pytest.approx(200 / 3), 100.0)


@pytest.mark.parametrize("most", [1, 3, 7, 50])
def test_shortlist_takes_the_best_and_of_equal_ones_the_first(most: int) -> None:
    rng = np.random.default_rng(0)
    cosine = rng.integers(0, 4, (5, 7)) / 4
    for row, chosen in zip(cosine, shortlist(cosine, most), strict=True):
        by_hand = sorted(range(7), key=lambda index: (-row[index], index))[:most]
        assert np.flatnonzero(chosen).tolist() == sorted(by_hand)


def test_rerank_puts_the_rescored_first_and_the_others_after_them_by_cosine() -> None:
    rng = np.random.default_rng(1)
    for most in (1, 4, 9):
        cosine = rng.uniform(-1, 1, (6, 9))
        logits = rng.normal(0, 20, (6, 9))
        chosen = shortlist(cosine, most)
        order = np.argsort(-rerank(cosine, np.where(chosen, logits, np.nan), chosen), axis=1)
        for row in range(6):
            best = sorted(np.flatnonzero(chosen[row]), key=lambda index: -logits[row, index])
            rest = sorted(np.flatnonzero(~chosen[row]), key=lambda index: -cosine[row, index])
            assert order[row].tolist() == best + rest


def test_reranked_scores_of_all_are_the_scores_themselves() -> None:
    cosine, logits = np.random.default_rng(2).uniform(-1, 1, (2, 4, 4))
    assert np.array_equal(rerank(cosine, logits, np.ones((4, 4), dtype=bool)), logits)


def test_a_rescored_pair_that_is_no_number_is_not_passed_off_as_its_cosine() -> None:
    cosine = np.array([[0.9, 0.8, 0.1]])
    chosen = np.array([[True, True, False]])
    scores = rerank(cosine, np.array([[np.nan, 2.0, np.nan]]), chosen)
    assert np.isnan(scores[0, 0]) and scores[0, 1] == 2.0 and scores[0, 2] < 2.0
    assert best_ranks(scores, np.array([[True, False, False]])).tolist() == [3]
