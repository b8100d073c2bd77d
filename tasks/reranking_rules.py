"""Rules that turn similarities and matching logits into candidate scores; each is named after what it computes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.metrics.retrieval import rerank

NOT_RERANKED = -100.0
MATCHING_SHARE = 0.7
"""The weight of the matching probability in an option's score; the similarity has the rest."""
SCALE = 1000.0
"""The factor in the reference of `by_scaled_probability`; it changes no order."""


def by_logit(chosen: NDArray, logits: NDArray, num_candidates: int) -> NDArray:
    """Scores (Q, N): each `chosen` candidate (Q, k) scores its logit (Q, k); all others score -100.

    Similarity only chooses the candidates. A pair is scored once, so both directions may share the logits.
    """
    scores = np.full((len(chosen), num_candidates), NOT_RERANKED, dtype=np.float32)
    np.put_along_axis(scores, chosen.astype(np.int64), logits.astype(np.float32), axis=1)
    return scores


def by_share_of_options(
    similarity_QO: Tensor, matching_logits_QO2: Tensor, matching_share: float = MATCHING_SHARE
) -> Tensor:
    """Scores (Q, O) of a question's options: a share of the probability of a match, the rest of the softmax over them.

    `similarity_QO` is already divided by the temperature. The last axis of the logits is (no match, match).
    """
    matching = matching_logits_QO2.float().softmax(dim=-1)[..., 1]
    return matching_share * matching + (1 - matching_share) * similarity_QO.float().softmax(dim=-1)


def by_scaled_probability(similarity: NDArray, probability: NDArray) -> NDArray:
    """Scores (Q, K), float64, of each query's K candidates: the matching probability times the query's softmax.

    The reference (STOA-VLP) multiplies by 1000, then adds 1000 to lift candidates above the rest; in float32 that sum
    rounds away the differences between candidates. Here `tasks.metrics.retrieval.rerank` puts the rest behind instead.
    The ranks are the same.

    Args:
        similarity: (Q, K), cosines times the model's scale.
        probability: (Q, K), that the pair matches. If a model scores all candidates of a query together, the two
            directions differ.
    """
    # The softmax over each query's candidates, shifted by the maximum so that nothing overflows.
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
    """How to rescore the best candidates of each query; each pair is matched once, for both directions.

    Attributes:
        by_query: match all candidates of a query in one call instead, each direction apart, as a model asks for whose
            logits depend on the other pairs of a call.
        value: reduces the logits (P, 2) of the pairs to one value each, (P,).
        scores: (cosine (q, N) float32, chosen (q, k), values (q, k), scale) -> scores (q, N) of a tile of queries;
            `scale` is what the model multiplies cosines by, 1 / temperature.
    """

    value: Callable[[Tensor], Tensor]
    scores: Callable[[NDArray, NDArray, NDArray, float], NDArray]
    by_query: bool = False


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
    """Spread chosen candidates and their values (q, k) over all candidates (q, N); NaN where none was chosen."""
    is_chosen, spread = np.zeros(cosine.shape, dtype=bool), np.full(cosine.shape, np.nan)
    np.put_along_axis(is_chosen, chosen, True, axis=1)
    np.put_along_axis(spread, chosen, values, axis=1)
    return is_chosen, spread


RULES: dict[str, Rule] = {
    "logit_plus_cosine": Rule(logit_of, _logit_plus_cosine),
    "logit": Rule(logit_of, _logit),
    "scaled_probability": Rule(probability_of, _scaled_probability),
    "scaled_probability_by_query": Rule(probability_of, _scaled_probability, by_query=True),
}
"""The rules, by `evaluation.rerank_rule`."""


def rule_named(name: str) -> Rule:
    """The rule with this name; ValueError if there is none."""
    if name not in RULES:
        raise ValueError(f"evaluation.rerank_rule: found {name}, expected one of {', '.join(RULES)}")
    return RULES[name]
