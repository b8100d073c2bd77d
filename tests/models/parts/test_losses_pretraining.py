"""Pairs, hidden words and distances against loops."""

import math

import torch
from torch.nn import functional as F

from models.parts.losses_pretraining import (
    NOT_ASKED,
    feature_distance,
    mask_words,
    masked_word_loss,
    matching_pairs,
)


def test_pairs_are_own_then_both_kinds_of_negatives() -> None:
    pairs = matching_pairs(torch.tensor([2, 0, 1]), torch.tensor([1, 2, 0]))
    assert pairs.video.tolist() == [0, 1, 2, 2, 0, 1, 0, 1, 2]
    assert pairs.text.tolist() == [0, 1, 2, 0, 1, 2, 1, 2, 0]
    assert pairs.label.tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_words_are_hidden_by_the_noise() -> None:
    ids = torch.tensor([[2, 7, 8, 9, 3, 0]])
    chosen = torch.tensor([[0.0, 0.1, 0.1, 0.1, 0.9, 0.0]])
    fate = torch.tensor([[0.0, 0.5, 0.85, 0.95, 0.0, 0.0]])
    other = torch.full((1, 6), 0.5)
    hidden, labels = mask_words(ids, torch.stack([chosen, fate, other]), 0.5, ids > 2, mask_id=4, num_words=30)
    assert hidden.tolist() == [[2, 4, 15, 9, 3, 0]]
    assert labels.tolist() == [[NOT_ASKED, 7, 8, 9, NOT_ASKED, NOT_ASKED]]


def test_shares_of_hidden_words() -> None:
    noise = torch.rand(3, 200, 50, generator=torch.Generator().manual_seed(0))
    ids = torch.full((200, 50), 20)
    hidden, labels = mask_words(ids, noise, 0.5, ids > 0, mask_id=4, num_words=1000)
    asked = labels != NOT_ASKED
    assert abs(asked.float().mean() - 0.5) < 0.02
    assert abs((hidden[asked] == 4).float().mean() - 0.8) < 0.02
    assert abs((hidden[asked] == 20).float().mean() - 0.1) < 0.02
    assert bool((hidden[~asked] == 20).all()) and int(hidden.max()) < 1000


def test_only_asked_words_count() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[NOT_ASKED, 4, NOT_ASKED], [0, NOT_ASKED, NOT_ASKED]])
    expected = -(logits[0, 1].log_softmax(0)[4] + logits[1, 0].log_softmax(0)[0]) / 2
    torch.testing.assert_close(masked_word_loss(logits, labels), expected)


def test_distance_is_that_of_unit_vectors() -> None:
    student, teacher = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).unbind()
    expected = (F.normalize(student, dim=-1) - F.normalize(teacher, dim=-1)).square().sum(dim=-1).mean()
    torch.testing.assert_close(feature_distance(3 * student, teacher), expected)
    assert math.isclose(feature_distance(student, -student).item(), 4.0, rel_tol=1e-5)
