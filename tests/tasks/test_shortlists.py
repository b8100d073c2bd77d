"""Pairs on the lists of texts and videos against a loop over all pairs."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.shortlists import Shortlists
from tests.tasks.metrics.dense import is_on_shortlist


def chosen_at_random(rng: np.random.Generator, queries: int, candidates: int, most: int) -> NDArray:
    rows = [np.sort(rng.permutation(candidates)[:most]) for _ in range(queries)]
    return np.array(rows, dtype=np.int32)


@pytest.mark.parametrize(("num_texts", "num_videos", "most"), [(1, 1, 1), (9, 5, 2), (4, 11, 3), (6, 6, 6), (12, 3, 8)])
def test_each_pair_of_either_list_is_one_pair_and_its_logit_is_on_both(
    num_texts: int, num_videos: int, most: int
) -> None:
    rng = np.random.default_rng(most)
    of_texts = chosen_at_random(rng, num_texts, num_videos, min(most, num_videos))
    of_videos = chosen_at_random(rng, num_videos, num_texts, min(most, num_texts))
    wanted = {(text, int(video)) for text in range(num_texts) for video in of_texts[text]}
    wanted |= {(int(text), video) for video in range(num_videos) for text in of_videos[video]}
    lists = Shortlists(of_texts, of_videos)
    pairs = [(int(text), video) for video in range(num_videos) for text in lists.texts_of(video)]
    assert sorted(pairs) == sorted(wanted) and len(pairs) == len(wanted)
    logits = rng.normal(size=(num_texts, num_videos)).astype(np.float32)
    left = np.array([logits[text, video] for text, video in pairs])
    for video in range(num_videos):
        left = lists.put_first(video, left)
    assert len(left) == 0
    assert np.array_equal(lists.logits[0], np.take_along_axis(logits, of_texts, axis=1))
    assert np.array_equal(lists.logits[1], np.take_along_axis(logits.T, of_videos, axis=1))


def test_a_video_on_no_list_of_a_text_has_its_own_list_alone() -> None:
    lists = Shortlists(np.array([[0], [0], [2]]), np.array([[0, 2], [1, 2], [0, 1]]))
    assert [lists.texts_of(video).tolist() for video in range(3)] == [[0, 1, 2], [1, 2], [0, 1, 2]]
    assert np.isnan(lists.logits[0]).all() and np.isnan(lists.logits[1]).all()


def test_as_many_pairs_as_a_dense_array_of_both_shortlists_has() -> None:
    cosine = np.random.default_rng(0).normal(size=(40, 30))
    t2v, v2t = is_on_shortlist(cosine, 4), is_on_shortlist(cosine.T, 4)
    lists = Shortlists(*(np.nonzero(chosen)[1].reshape(len(chosen), 4) for chosen in (t2v, v2t)))
    assert sum(len(lists.texts_of(video)) for video in range(30)) == (t2v | v2t.T).sum()
