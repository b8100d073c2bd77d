"""Reranking by the probability that a pair matches, weighted by the query's softmax over its candidates (STOA-VLP)."""

import numpy as np
from numpy.typing import NDArray

WEIGHT = 1000.0
"""What the reference multiplies by. It orders nothing by itself: all candidates of a query share it."""


def scaled_probability(similarity: NDArray, probability: NDArray) -> NDArray:
    """Scores (Q, K) of each query's K candidates, float64.

    The reference adds 1000 to tell candidates from the rest, which costs float32 what tells them apart; here
    `tasks.metrics.retrieval.rerank` puts the others behind, and scores keep their precision.

    Args:
        similarity: (Q, K), cosines times the model's scale.
        probability: (Q, K), that the pair matches.
    """
    shifted = similarity.astype(np.float64) - similarity.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights * WEIGHT * probability.astype(np.float64)
