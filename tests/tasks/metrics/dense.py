"""Retrieval metrics of whole score arrays, as one writes them where memory does not count."""

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.retrieval import best_ranks, recalls, rerank


def both_directions(t2v: NDArray, v2t: NDArray, text_video: NDArray, suffix: str = "") -> dict[str, float]:
    """All metrics of scores (texts, videos) and (videos, texts); `text_video` (texts,) is the video of each text."""
    relevant = text_video[:, None] == np.arange(t2v.shape[1])[None]
    return {
        **recalls(best_ranks(t2v, relevant), "t2v", suffix),
        **recalls(best_ranks(v2t, relevant.T), "v2t", suffix),
    }


def is_on_shortlist(cosine: NDArray, most: int) -> NDArray:
    """Bool (Q, N): the `most` best candidates of each query, by a sort; of equal ones those of smaller index."""
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :most]
    chosen = np.zeros(cosine.shape, dtype=bool)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen


def rescored(cosine: NDArray, logits: NDArray, most: int) -> tuple[NDArray, NDArray]:
    """Scores (texts, videos) and (videos, texts) with the best of each direction rescored, of logits of all pairs."""
    scores = logits.astype(np.float64) + cosine
    return (
        rerank(cosine, scores, is_on_shortlist(cosine, most)),
        rerank(cosine.T, scores.T, is_on_shortlist(cosine.T, most)),
    )
