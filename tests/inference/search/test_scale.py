"""Cosines as probabilities, by the softmax that they come from."""

import math

import numpy as np
import pytest

from inference.search.scale import EVERYDAY_CAPTIONS, MAY_DESCRIBE, even_cosine, probability_of_cosine


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_the_even_cosine_equals_the_other_captions_together(temperature: float) -> None:
    everyday = np.random.default_rng(0).uniform(-0.3, 0.6, (7, 20)).astype(np.float32)
    even = even_cosine(everyday, temperature)
    together = [
        sum(math.exp(cosine / temperature) for cosine in sorted(row)[: 20 - MAY_DESCRIBE]) for row in everyday.tolist()
    ]
    assert math.exp(even / temperature) == pytest.approx(sum(together) / 7, rel=1e-5)

    # With one video the probability is the softmax of the text among the captions.
    even = even_cosine(everyday[:1], temperature)
    for cosine in (-1.0, 0.2, 0.9):
        own = math.exp(cosine / temperature)
        (probability,) = probability_of_cosine(np.float32([cosine]), even, temperature)
        assert probability == pytest.approx(own / (own + together[0]), rel=1e-4)


def test_small_temperatures_overflow_nothing() -> None:
    even = even_cosine(np.float32([[0.9] * 10, [0.1] * 10]), 1e-3)
    assert even == pytest.approx(0.9, abs=0.01)
    with np.errstate(all="raise"):
        assert probability_of_cosine(np.float32([-1, even, 1]), even, 1e-3) == pytest.approx([0, 0.5, 1], abs=1e-4)


def test_everyday_captions_are_many_and_different() -> None:
    assert len(set(EVERYDAY_CAPTIONS)) == len(EVERYDAY_CAPTIONS) == 64
    assert not any(caption != caption.strip().lower() for caption in EVERYDAY_CAPTIONS)
