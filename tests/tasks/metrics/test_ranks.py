"""Ranks by sorting, every treatment of ties, and the statistics by hand."""

import numpy as np
import pytest

from tasks.metrics.ranks import (
    average_windows,
    rank_statistics,
    text_to_video_ranks,
    video_to_text_ranks,
)


def rank_by_sorting(scores: np.ndarray, own: int, ties: str) -> float:
    places = [1 + place for place, value in enumerate(sorted(scores, reverse=True)) if value == scores[own]]
    return {"best": min(places), "worst": max(places), "mean": float(np.mean(places))}[ties]


@pytest.mark.parametrize("ties", ["best", "mean", "worst"])
def test_ranks_are_those_of_sorting(ties: str) -> None:
    rng = np.random.default_rng(0)
    text_video = np.repeat(np.arange(6), 3)
    similarity = rng.integers(0, 5, (18, 6)).astype(np.float64)
    exists = rng.random(18) > 0.3
    exists[::3] = True
    expected = [rank_by_sorting(similarity[row], text_video[row], ties) for row in range(18) if exists[row]]
    assert text_to_video_ranks(similarity, text_video, ties, exists).tolist() == expected

    expected = []
    for video in range(6):
        scores = np.where(exists, similarity[:, video], -np.inf)
        own = [row for row in range(18) if text_video[row] == video and exists[row]]
        expected.append(min(rank_by_sorting(scores, row, ties) for row in own))
    assert video_to_text_ranks(similarity, text_video, ties, exists).tolist() == expected


def test_a_video_without_texts_is_refused() -> None:
    with pytest.raises(ValueError, match="video 1 has no text"):
        video_to_text_ranks(np.zeros((1, 2)), np.array([0]))


def test_statistics_by_hand() -> None:
    found = rank_statistics(np.array([1, 2, 6, 11, 60, 1.5, 5.5, 1]))
    assert (found["r1"], found["r5"], found["r10"], found["r50"]) == (25.0, 62.5, 75.0, 87.5)
    assert found["median_rank"] == 3.75 and found["mean_rank"] == 11.0
    assert found["geometric_mean"] == pytest.approx((25 * 62.5 * 75) ** (1 / 3))
    assert rank_statistics(np.array([2, 3]))["geometric_mean"] == 0.0


def test_windows_are_averaged_with_their_lengths() -> None:
    windows = np.array([[2.0, 0.0], [0.0, 4.0], [1.0, 1.0]])
    assert average_windows(windows, np.array([0, 0, 1]), 2).tolist() == [[1.0, 2.0], [1.0, 1.0]]
    with pytest.raises(ValueError, match="video 1 has no window"):
        average_windows(windows, np.array([0, 0, 2]), 3)
