"""The toy's reranking rule: the similarity times how much likelier a match is than none; all others come last."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.reranking_rules import Rule

LAST = -10.0


def odds(logits_P2: Tensor) -> Tensor:
    return torch.exp((logits_P2[:, 1] - logits_P2[:, 0]).float().clamp(-5, 5))


def similarity_times_odds(cosine: NDArray, chosen: NDArray, values: NDArray, scale: float) -> NDArray:
    rows = chosen.astype(np.int64)
    scores = cosine.astype(np.float64) + LAST
    rescored = (1 + np.take_along_axis(cosine, rows, axis=1).astype(np.float64)) * values
    np.put_along_axis(scores, rows, rescored, axis=1)
    return scores


RULE = Rule(odds, similarity_times_odds)
