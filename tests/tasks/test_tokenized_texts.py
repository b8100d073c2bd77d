"""Texts tokenized once come out of any batch as the tokenizer gives that batch."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from models.parts.tokenizer import make_tokenizer
from tasks import tokenized_texts
from tasks.tokenized_texts import TokenizedTexts
from tests.tiny_runs import caption

TEXTS = [caption(video, video % 7) + " and on" * (video % 4) for video in range(30)]
MAX_TOKENS = 11


@pytest.mark.parametrize("texts_at_once", [1, 7, 256])
def test_a_batch_is_what_the_tokenizer_gives_it(texts_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenized_texts, "TEXTS_AT_ONCE", texts_at_once)
    tokenizer, seen = make_tokenizer(TEXTS, 200), []

    def tokenize(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        seen.extend(texts)
        return tokenizer(texts, MAX_TOKENS)

    texts = TokenizedTexts(TEXTS, tokenize, tokenizer.pad_id)
    assert len(texts) == len(TEXTS) and texts.ids.dtype == np.int32
    for chosen in (range(30), [3], [29, 0, 4], texts.by_length(np.arange(30))[:5]):
        expected = tokenizer([TEXTS[text] for text in chosen], MAX_TOKENS)
        for found, wanted in zip(texts.batch(np.array(chosen), torch.device("cpu")), expected, strict=True):
            assert found.dtype == wanted.dtype == torch.int64 and torch.equal(found, wanted)
    assert seen == TEXTS  # each once
    assert texts.lengths.max() == MAX_TOKENS > texts.lengths.min()


def test_padding_is_the_tokenizers_own() -> None:
    ids, mask = torch.tensor([[5, 0, 7], [8, 9, 9]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    texts = TokenizedTexts(["a", "b"], lambda _: (ids, mask), pad_id=9)
    found, kept = texts.batch(np.array([0, 1]), torch.device("cpu"))
    assert found.tolist() == ids.tolist() and kept.tolist() == mask.tolist()


def test_by_length_keeps_the_order_of_equal_ones() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]])
    texts = TokenizedTexts(list("abcd"), lambda _: (torch.ones(4, 3, dtype=torch.int64), mask), pad_id=0)
    assert texts.by_length(np.array([0, 1, 2, 3])).tolist() == [1, 3, 2, 0]
    assert texts.by_length(np.array([3, 2, 1])).tolist() == [3, 1, 2]
