"""Retrieval metrics as functions of score arrays, in both directions; recalls in percent, ranks from 1."""

import numpy as np
from numpy.typing import NDArray

RECALLS = (1, 5, 10)


def best_ranks(scores: NDArray, relevant: NDArray) -> NDArray:
    """Rank (Q,), from 1, of each query's best relevant candidate in scores (Q, N); `relevant` (Q, N) is bool.

    Ties, and scores that are not numbers, count against us: as many irrelevant candidates stand before the best
    relevant one as do not score less.
    """
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    return 1 + (~relevant & ~(scores < best)).sum(axis=1)


def rerank(cosine: NDArray, rescored: NDArray, chosen: NDArray) -> NDArray:
    """Scores (Q, N) that put the `chosen` candidates first, by `rescored`, and the others after them, by cosine."""
    # fmin leaves out scores that are not numbers, so that they do not spread to the candidates that have one.
    floor = np.fmin.reduce(np.where(chosen, rescored, np.inf), axis=1, keepdims=True)
    floor = np.where(np.isfinite(floor), floor, 0.0)
    # Cosines lie in [-1, 1]: less 3, they all stay below the worst of the chosen.
    return np.where(chosen, rescored, cosine.astype(np.float64) + floor - 3)


def shortlist(cosine: NDArray, most: int) -> NDArray:
    """Bool (Q, N): the `most` best candidates of each query, or all there are; of equal ones those of smaller index."""
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :most]
    chosen = np.zeros(cosine.shape, dtype=bool)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen


def recalls(ranks: NDArray, direction: str, suffix: str = "") -> dict[str, float]:
    """`t2v_r1`, ..., `t2v_mean_recall` (the mean of the recalls) and `t2v_median_rank` of ranks (Q,)."""
    found = {f"{direction}_r{k}{suffix}": 100 * float((ranks <= k).mean()) for k in RECALLS}
    found[f"{direction}_mean_recall{suffix}"] = sum(found.values()) / len(RECALLS)
    found[f"{direction}_median_rank{suffix}"] = float(np.median(ranks))
    return found


def both_directions(t2v: NDArray, v2t: NDArray, text_video: NDArray, suffix: str = "") -> dict[str, float]:
    """All metrics of scores (texts, videos) and (videos, texts); `text_video` (texts,) is the video of each text."""
    relevant = text_video[:, None] == np.arange(t2v.shape[1])[None]
    return {
        **recalls(best_ranks(t2v, relevant), "t2v", suffix),
        **recalls(best_ranks(v2t, relevant.T), "v2t", suffix),
    }
