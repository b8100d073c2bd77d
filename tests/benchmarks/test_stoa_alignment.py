"""What the measure of alignment says of features whose answer is known."""

import itertools

import numpy as np
import pytest
import torch

from benchmarks.stoa.alignment import (
    Answers,
    Found,
    area,
    class_at_end,
    labels_of,
    motions_told,
    nouns_of,
    point,
    summary,
)
from models.stoa.fusion import ClipMemory
from models.stoa.model import TextFeatures
from models.stoa.objectives import Tags

CLASSES = {"red ring": 1, "ring": 2, "star": 3}


def test_a_noun_is_named_with_the_words_before_it() -> None:
    assert [class_at_end(text, CLASSES) for text in ("a red ring", "a blue ring", "bring", "star", "red")] == [
        1,
        2,
        0,
        3,
        0,
    ]
    assert nouns_of(CLASSES).tolist() == [0, 1, 1, 2]


def pointed(trajectories: torch.Tensor) -> Found:
    """What is found of two clips with trajectories of classes 3, 1 and (the first) 2, and two or three nouns."""
    ids = torch.tensor([[3, 1, 2], [3, 1, 0]])
    mask = ids != 0
    states = torch.eye(5)[:, [0, 1, 2, 3]].expand(2, -1, -1)
    noun = torch.tensor([[False, True, True, True, False], [False, True, True, False, False]])
    wanted = torch.tensor([[0, 1, 2, 3, 0], [0, 3, 1, 0, 0]])
    memory = ClipMemory(torch.zeros(2, 1, 4), trajectories, mask, None)
    texts = TextFeatures(states, torch.ones(2, 5, dtype=torch.bool), states[:, 0])
    found = Found()
    answers = Answers(wanted, ids, nouns_of(CLASSES))
    point(found, memory, texts, Tags(noun, torch.zeros_like(noun)), answers, end_is_candidate=False)
    return found


def test_nouns_point_at_their_own_trajectories_or_at_others() -> None:
    right = torch.tensor(
        [[[0, 0, 0, 9], [0, 9, 0, 0], [0, 0, 9, 0]], [[0, 9, 0, 0], [0, 0, 9, 0], [0, 0, 0, 0]]]
    ).float()
    found = pointed(right)
    assert found.right == [True] * 5 and found.assigned == [True] * 5
    assert found.chance == pytest.approx([1 / 3] * 3 + [1 / 2] * 2)
    wrong = pointed(right.roll(1, dims=1))
    # The second clip's third trajectory is padding, so its nouns are left with the wrong one of two.
    assert wrong.right[:3] == [False] * 3 and sum(wrong.assigned) == 0
    # The red ring points at the other ring, which is of the same noun at least.
    assert wrong.right_noun[:3] == [True, False, False]
    assert found.right_noun == [True] * 5 and found.chance_noun[:3] == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    numbers = summary(found, found, [])
    assert (numbers["nouns"], numbers["nouns_right"], numbers["nouns_chance"]) == (5, 100.0, 40.0)


def test_a_long_trajectory_has_the_largest_products_and_not_the_largest_shares() -> None:
    # The first clip's first trajectory, the third noun's, has larger products with the others than their own.
    trajectories = torch.tensor(
        [[[0, 20, 20, 25], [0, 9, 0, 0], [0, 0, 9, 0]], [[0, 9, 0, 0], [0, 0, 9, 0], [0, 0, 0, 0]]]
    ).float()
    found = pointed(trajectories)
    assert found.right == [True] * 5
    assert found.right_by_product == [False, False, True, True, True]
    assert found.right_noun_by_product == found.right_by_product


def test_motions_are_told_from_features_that_hold_them_and_from_no_others() -> None:
    rng = np.random.default_rng(0)
    motions = ["moves up", "spins"]
    texts = [" and ".join(rng.permutation(motions)[: rng.integers(0, 3)]) or "nothing" for _ in range(240)]
    labels = labels_of(texts, motions).float()
    assert labels[:, 1].tolist() == [float("spins" in text) for text in texts]
    noise = torch.from_numpy(rng.normal(size=(240, 6))).float()
    held, without = torch.cat([labels @ torch.randn(2, 3), noise], dim=1), noise
    known, new = slice(160), slice(160, 240)
    assert min(motions_told(list(held[known]), texts[known], list(held[new]), texts[new], motions)) > 0.95
    areas = motions_told(list(without[known]), texts[known], list(without[new]), texts[new], motions)
    assert all(abs(found - 0.5) < 0.2 for found in areas)


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(1)
    scores, truth = rng.integers(0, 5, 20).astype(float), rng.random(20) < 0.4
    pairs = [(a, b) for a, b in itertools.product(scores[truth], scores[~truth])]
    assert area(scores, truth) == pytest.approx(np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]))
