"""Ranks in retrieval with a choice of how ties count, and the usual statistics of ranks.

Similarities have texts in rows and videos in columns: Q texts, V videos. `text_video` (Q,) is the video of each text.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ties = Literal["best", "mean", "worst"]
RECALLS = (1, 5, 10, 50)
GEOMETRIC = (1, 5, 10)
"""The recalls that enter the geometric mean."""


def text_to_video_ranks(
    similarity_QV: NDArray, text_video: NDArray, ties: Ties = "worst", exists: NDArray | None = None
) -> NDArray:
    """The rank, from 1, of each text's video; texts that do not exist are skipped.

    Args:
        ties: the rank of a tied video: the best of the tie (the reference), the mean, or the worst.
        exists: bool (Q,), False for a text that does not exist.
    """
    if exists is not None:
        similarity_QV, text_video = similarity_QV[exists], text_video[exists]
    own = similarity_QV[np.arange(len(text_video)), text_video]
    return _tied_ranks(similarity_QV, own[:, None], ties)[:, 0]


def video_to_text_ranks(
    similarity_QV: NDArray, text_video: NDArray, ties: Ties = "worst", exists: NDArray | None = None
) -> NDArray:
    """The rank, from 1, of each video's best text among all texts, including its other texts.

    Texts that do not exist are ignored. Arguments as in `text_to_video_ranks`; the reference takes the mean rank of a
    tie. ValueError for a video without a text.
    """
    present = np.ones(len(text_video), dtype=bool) if exists is None else exists
    ranks = np.empty(similarity_QV.shape[1])
    for video in range(similarity_QV.shape[1]):
        own = (text_video == video) & present
        if not own.any():
            raise ValueError(f"video {video} has no text to be found")
        scores = similarity_QV[present, video]
        ranks[video] = _tied_ranks(scores[None], similarity_QV[own, video][None], ties).min()
    return ranks


def _tied_ranks(scores_RN: NDArray, own_RK: NDArray, ties: Ties) -> NDArray:
    """Ranks (R, K) of the scores `own_RK` within their rows `scores_RN`, which contain them."""
    better = (scores_RN[:, None] > own_RK[..., None]).sum(axis=-1)
    equal = (scores_RN[:, None] == own_RK[..., None]).sum(axis=-1)
    if ties == "best":
        return better + 1
    return better + (equal + 1) / 2 if ties == "mean" else better + equal


def rank_statistics(ranks: NDArray) -> dict[str, float]:
    """`r1`, `r5`, `r10`, `r50` in percent, `median_rank`, `mean_rank`, and `geometric_mean` of the first three.

    The mean rank of a tie may be fractional. As in the reference it counts for r5, r10 and r50 if it is below 6, 11
    and 51; for r1 it must be 1.
    """
    found = {f"r{k}": 100 * float((ranks < k + 1).mean() if k > 1 else (ranks == 1).mean()) for k in RECALLS}
    found["median_rank"] = float(np.median(ranks))
    found["mean_rank"] = float(np.mean(ranks))
    product = float(np.prod([found[f"r{k}"] for k in GEOMETRIC]))
    found["geometric_mean"] = product ** (1 / len(GEOMETRIC))
    return found


def average_windows(embeddings_WE: NDArray, window_video: NDArray, num_videos: int) -> NDArray:
    """Embeddings (V, E) of videos: the mean over each video's sliding windows, not normalised first.

    ValueError for a video without a window.
    """
    counts = np.bincount(window_video, minlength=num_videos)
    if (counts == 0).any():
        raise ValueError(f"video {int(np.flatnonzero(counts == 0)[0])} has no window")
    sums = np.zeros((num_videos, embeddings_WE.shape[1]), dtype=np.float64)
    np.add.at(sums, window_video, embeddings_WE)
    return (sums / counts[:, None]).astype(embeddings_WE.dtype)
