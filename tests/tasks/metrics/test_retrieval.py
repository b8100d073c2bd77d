"""Ranks, recalls and reranking against plain loops over candidates."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.metrics import retrieval
from tasks.metrics.relation import Relation
from tasks.metrics.retrieval import best_ranks, both_directions, recalls, rerank, shortlist
from tasks.reranking_rules import RULES
from tests.tasks.metrics import dense


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
        "t2v_r1": 40.0, "t2v_r5": 60.0, "t2v_r10": 80.0, "t2v_r50": 100.0, "t2v_mean_recall": 60.0,
        "t2v_median_rank": 3.0, "t2v_mean_rank": 8.4, "t2v_geometric_mean": pytest.approx((40 * 60 * 80) ** (1 / 3)),
    }  # fmt: skip
    found = recalls(np.array([2, 11]), "v2t", "_cosine")
    assert found == {
        "v2t_r1_cosine": 0.0, "v2t_r5_cosine": 50.0, "v2t_r10_cosine": 50.0, "v2t_r50_cosine": 100.0,
        "v2t_mean_recall_cosine": pytest.approx(100 / 3), "v2t_median_rank_cosine": 6.5, "v2t_mean_rank_cosine": 6.5,
        "v2t_geometric_mean_cosine": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize("scores_at_once", [1, 20, 2**18])
def test_dual_softmax_is_that_of_the_whole_matrix(scores_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "SCORES_AT_ONCE", scores_at_once)
    rng = np.random.default_rng(0)
    texts, videos = embeddings(rng, 7, 3), embeddings(rng, 5, 3)
    texts[3], videos[3] = texts[0], videos[0]
    t2v, v2t = both_directions(texts, videos, Relation.of_one_each(np.arange(7) % 5, 5))
    for direction, other in ((t2v, v2t), (v2t, t2v)):
        totals = np.concatenate([other.log_totals(tile, 100.0) for tile in other.tiles()])
        found = np.concatenate([direction.dual_softmax(tile, totals, 100.0) for tile in direction.tiles()])
        cosine = direction.cosine(slice(None)).astype(np.float64)
        expected = cosine * np.exp(100 * cosine) / np.exp(100 * cosine).sum(axis=0)
        assert np.allclose(found, expected, rtol=1e-9)
        # Equal queries claim a candidate equally, to the bit: a tie stays one.
        assert np.array_equal(found[0], found[3])


def test_a_video_of_several_captions_takes_the_best_of_them() -> None:
    text_video = np.array([0, 0, 1])
    v2t = np.array([[0.1, 0.9, 0.5], [0.8, 0.7, 0.75]])  # video 0: its second caption is first; video 1: second
    t2v = np.array([[0.2, 0.9], [0.9, 0.2], [0.1, 0.2]])  # text 0: second; texts 1 and 2: first
    found = dense.both_directions(t2v, v2t, text_video)
    assert (found["v2t_r1"], found["v2t_median_rank"]) == (50.0, 1.5)
    assert (found["t2v_r1"], found["t2v_r5"]) == (pytest.approx(200 / 3), 100.0)


@pytest.mark.parametrize("most", [1, 3, 7, 50])
def test_shortlist_takes_the_best_and_of_equal_ones_the_first(most: int) -> None:
    rng = np.random.default_rng(0)
    cosine = rng.integers(0, 4, (5, 7)) / 4
    cosine[1, 2] = cosine[1, 5] = np.nan  # comes last
    cosine[3] = np.nan
    found = shortlist(cosine, most)
    assert found.shape == (5, min(most, 7))
    for row, chosen in zip(cosine, found, strict=True):
        by_hand = sorted(range(7), key=lambda index: (np.isnan(row[index]), -np.nan_to_num(row[index]), index))[:most]
        assert chosen.tolist() == sorted(by_hand)
    assert np.array_equal(found, np.nonzero(dense.is_on_shortlist(cosine, most))[1].reshape(found.shape))


def test_rerank_puts_the_rescored_first_and_the_others_after_them_by_cosine() -> None:
    rng = np.random.default_rng(1)
    for most in (1, 4, 9):
        cosine = rng.uniform(-1, 1, (6, 9))
        logits = rng.normal(0, 20, (6, 9))
        chosen = dense.is_on_shortlist(cosine, most)
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


def embeddings(rng: np.random.Generator, rows: int, width: int) -> NDArray:
    """Unit vectors (rows, width) of few kinds, so that many are equal."""
    vectors = rng.integers(-1, 2, (rows, width)) + 0.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("scores_at_once", [1, 30, 2**18])
def test_tiles_have_the_ranks_and_scores_of_whole_arrays(scores_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with ties, several texts a video, scores that are no numbers, and shortlists of all there is."""
    monkeypatch.setattr(retrieval, "SCORES_AT_ONCE", scores_at_once)
    rng = np.random.default_rng(scores_at_once)
    for trial in range(40):
        num_videos, most = int(rng.integers(1, 12)), int(rng.integers(1, 14))
        text_video = rng.permutation(np.arange(num_videos).repeat(rng.integers(1, 4, num_videos)))
        texts, videos = embeddings(rng, len(text_video), 3), embeddings(rng, num_videos, 3)
        videos[rng.random(num_videos) < 0.1] = np.nan
        cosine = (texts.astype(np.float64) @ videos.T.astype(np.float64)).astype(np.float32)
        logits = rng.integers(-2, 3, cosine.shape).astype(np.float32)
        logits[rng.random(cosine.shape) < 0.1] = (np.nan, -np.inf, np.inf)[trial % 3]
        expected = dense.rescored(cosine, logits, most)
        ranks = {"": {}, "_cosine": {}}
        for direction, whole, pairs in zip(
            both_directions(texts, videos, Relation.of_one_each(text_video, num_videos)),
            expected,
            (logits, logits.T),
            strict=True,
        ):
            rescore = RULES["logit_plus_cosine"].scores
            tiles = direction.tiles()
            assert len(tiles) == -(-len(direction.queries) // max(1, scores_at_once // len(direction.candidates)))
            chosen = np.concatenate([direction.shortlist(tile, most) for tile in tiles])
            of_chosen = np.take_along_axis(pairs, chosen, axis=1)
            scores = [rescore(direction.cosine(tile), chosen[tile], of_chosen[tile], 1.0) for tile in tiles]
            assert np.array_equal(np.concatenate(scores), whole, equal_nan=True)
            for suffix, parts in (("", scores), ("_cosine", [direction.cosine(tile) for tile in tiles])):
                found = [direction.best_ranks(tile, part) for tile, part in zip(tiles, parts, strict=True)]
                ranks[suffix] |= recalls(np.concatenate(found), direction.name, suffix)
        assert ranks[""] == dense.both_directions(*expected, text_video)
        assert ranks["_cosine"] == dense.both_directions(cosine, cosine.T, text_video, "_cosine")


def test_equal_embeddings_have_equal_cosines_in_every_tile_and_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    texts, videos = (rng.normal(size=(rows, 256)).astype(np.float32) for rows in (97, 61))
    texts[50:], videos[40:] = texts[:47], videos[:21]
    whole = None
    for scores_at_once in (2**18, 200, 1):
        monkeypatch.setattr(retrieval, "SCORES_AT_ONCE", scores_at_once)
        t2v, v2t = (
            np.concatenate([direction.cosine(tile) for tile in direction.tiles()])
            for direction in both_directions(texts, videos, Relation.of_one_each(np.zeros(97, int), 61))
        )
        whole = t2v if whole is None else whole
        assert np.array_equal(t2v, whole) and np.array_equal(v2t, whole.T)
    assert np.array_equal(whole[50:], whole[:47]) and np.array_equal(whole[:, 40:], whole[:, :21])


def test_several_videos_a_text_are_ranked_as_by_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of all relevant candidates counts, in both directions, with ties and in tiles of any size."""
    rng = np.random.default_rng(9)
    for trial in range(30):
        num_texts, num_videos = (int(count) for count in rng.integers(1, 10, 2))
        belongs = rng.random((num_texts, num_videos)) < 0.3
        belongs[np.arange(num_texts), rng.integers(0, num_videos, num_texts)] = True
        belongs[rng.integers(0, num_texts, num_videos), np.arange(num_videos)] = True
        texts, videos = embeddings(rng, num_texts, 3), embeddings(rng, num_videos, 3)
        cosine = (texts.astype(np.float64) @ videos.T.astype(np.float64)).astype(np.float32)

        monkeypatch.setattr(retrieval, "SCORES_AT_ONCE", (1, 20, 2**18)[trial % 3])
        truth = Relation.of_pairs(*np.nonzero(belongs), num_texts, num_videos)
        t2v, v2t = (
            np.concatenate([direction.best_ranks(tile, direction.cosine(tile)) for tile in direction.tiles()])
            for direction in both_directions(texts, videos, truth)
        )

        assert t2v.tolist() == rank_by_hand(cosine, belongs)
        assert v2t.tolist() == rank_by_hand(cosine.T, belongs.T)
