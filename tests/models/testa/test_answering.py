"""Ranking answers in pieces, with ties: the same as one by one, and the first of equal ones."""

import pytest
import torch
from torch import Tensor

from models.testa import writing as module
from models.testa.model import VisionLanguageModel
from tests.models.tiny import clips, texts, vision_language

LENGTHS = (3, 4, 3, 6, 5, 4, 3, 3, 4, 9)


def asked() -> tuple[VisionLanguageModel, Tensor, Tensor]:
    model, (questions, mask) = vision_language("separate", "question"), texts((7, 4, 5, 6))
    return model, model.ground_text(model.encode_video(clips(4)).tokens, questions, mask), mask


@pytest.mark.parametrize("pairs_at_once", [1, 7, 1000])
@pytest.mark.parametrize("shortlist", [1, 3, 10])
@torch.no_grad()
def test_pieces_and_companions_change_nothing(
    monkeypatch: pytest.MonkeyPatch, pairs_at_once: int, shortlist: int
) -> None:
    (model, states, mask), answers = asked(), texts(LENGTHS, seed=5)
    expected = [
        int(model.answer(states[row : row + 1], mask[row : row + 1], *answers, shortlist=shortlist)) for row in range(4)
    ]
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", pairs_at_once)
    assert model.answer(states, mask, *answers, shortlist=shortlist).tolist() == expected
    assert len(set(expected)) > 1


@torch.no_grad()
def test_of_equal_answers_the_first_is_taken() -> None:
    (model, states, mask), (ids, kept) = asked(), texts(LENGTHS, seed=5)
    best = model.answer(states, mask, ids, kept).tolist()
    twice = (torch.cat([ids, ids]), torch.cat([kept, kept]))
    assert model.answer(states, mask, *twice).tolist() == best
    reverse = (ids.flip(0), kept.flip(0))
    assert model.answer(states, mask, *reverse).tolist() == [len(ids) - 1 - row for row in best]


@torch.no_grad()
def test_of_answers_that_begin_alike_the_first_are_ranked() -> None:
    """All begin with one word, so they are equally likely by it and only their order can choose."""
    (model, states, mask), (ids, kept) = asked(), texts((6,) * 40, seed=6)
    ids[:, 1] = ids[0, 1]
    short = model.answer(states, mask, ids, kept, shortlist=3)
    assert short.tolist() == model.answer(states, mask, ids[:3], kept[:3]).tolist()
    assert short.tolist() != model.answer(states, mask, ids, kept).tolist()
