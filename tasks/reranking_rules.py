"""Scores of candidates from similarities and matching logits, each rule under the name of what it does."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.metrics.retrieval import rerank

NOT_RERANKED = -100.0
MATCHING_SHARE = 0.7
"""Of a choice's score; the rest is similarity's."""
SCALE = 1000.0
"""What the reference of `by_scaled_probability` multiplies by; it changes no order."""


def by_logit(chosen: NDArray, logits: NDArray, num_candidates: int) -> NDArray:
    """Scores (Q, N) of the `chosen` candidates (Q, k) by their logits (Q, k) alone; all others are -100.

    Similarity only chooses the candidates. The rule scores each pair once, so both directions may share the logits.
    """
    scores = np.full((len(chosen), num_candidates), NOT_RERANKED, dtype=np.float32)
    np.put_along_axis(scores, chosen.astype(np.int64), logits.astype(np.float32), axis=1)
    return scores


def by_share_of_options(similarity_QO: Tensor, matching_logits_QO2: Tensor) -> Tensor:
    """Scores (Q, O) of a question's options: 0.7 of the probability of a match, 0.3 of the softmax over options.

    `similarity_QO` is divided by the temperature already; logits are of no match and match.
    """
    matching = matching_logits_QO2.float().softmax(dim=-1)[..., 1]
    return MATCHING_SHARE * matching + (1 - MATCHING_SHARE) * similarity_QO.float().softmax(dim=-1)


def by_scaled_probability(similarity: NDArray, probability: NDArray) -> NDArray:
    """Scores (Q, K) of each query's K candidates: the probability of a match times the query's softmax, float64.

    The reference (STOA-VLP) multiplies by 1000 and adds 1000 to tell candidates from the rest, which costs float32 what
    tells them apart; here `tasks.metrics.retrieval.rerank` puts the others behind. Rank by rank it is the same order.

    Args:
        similarity: (Q, K), cosines times the model's scale.
        probability: (Q, K), that the pair matches. Where a model scores all candidates of a query together, directions
            differ.
    """
    shifted = similarity.astype(np.float64) - similarity.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    weights /= weights.sum(axis=1, keepdims=True)
    return SCALE * weights * probability.astype(np.float64)


def logit_of(logits_P2: Tensor) -> Tensor:
    """The logit (P,) of a match."""
    return logits_P2[:, 1].float()


def probability_of(logits_P2: Tensor) -> Tensor:
    """The probability (P,) of a match."""
    return logits_P2.float().softmax(dim=1)[:, 1]


class Rule(NamedTuple):
    """How the best of each query are scored again; each pair is matched once, for both directions.

    Attributes:
        value: what of a pair's logits (P, 2) is kept, (P,).
        scores: (cosine (q, N) float32, chosen (q, k), values (q, k), scale) -> scores (q, N) of a tile of queries;
            `scale` is what the model multiplies cosines by, 1 / temperature.
    """

    value: Callable[[Tensor], Tensor]
    scores: Callable[[NDArray, NDArray, NDArray, float], NDArray]


def _logit_plus_cosine(cosine: NDArray, chosen: NDArray, values: NDArray, scale: float) -> NDArray:
    is_chosen, rescored = _spread(cosine, chosen, values)
    return rerank(cosine, rescored + cosine, is_chosen)


def _logit(cosine: NDArray, chosen: NDArray, values: NDArray, scale: float) -> NDArray:
    return by_logit(chosen, values, cosine.shape[1])


def _scaled_probability(cosine: NDArray, chosen: NDArray, values: NDArray, scale: float) -> NDArray:
    similarity = scale * np.take_along_axis(cosine, chosen.astype(np.int64), axis=1)
    is_chosen, rescored = _spread(cosine, chosen, by_scaled_probability(similarity, values))
    return rerank(cosine, rescored, is_chosen)


def _spread(cosine: NDArray, chosen: NDArray, values: NDArray) -> tuple[NDArray, NDArray]:
    """Which candidates (q, N) are chosen, and the values of those; NaN for all others."""
    is_chosen, spread = np.zeros(cosine.shape, dtype=bool), np.full(cosine.shape, np.nan)
    np.put_along_axis(is_chosen, chosen, True, axis=1)
    np.put_along_axis(spread, chosen, values, axis=1)
    return is_chosen, spread


RULES: dict[str, Rule] = {
    "logit_plus_cosine": Rule(logit_of, _logit_plus_cosine),
    "logit": Rule(logit_of, _logit),
    "scaled_probability": Rule(probability_of, _scaled_probability),
}
"""By `evaluation.rerank_rule`."""


def rule_named(name: str) -> Rule:
    """The rule of a name; ValueError if there is none."""
    if name not in RULES:
        raise ValueError(f"evaluation.rerank_rule: found {name}, expected one of {', '.join(RULES)}")
    return RULES[name]
