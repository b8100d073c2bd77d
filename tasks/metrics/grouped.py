"""Retrieval with several captions a video, by the protocol of CLIP4Clip and its successors."""

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.retrieval import best_ranks


def caption_ranks(scores: NDArray, caption_video: NDArray) -> NDArray:
    """The rank (C,) of each caption's video in scores (C, V), from 1."""
    return best_ranks(scores, caption_video[:, None] == np.arange(scores.shape[1]))


def video_ranks(scores: NDArray, caption_video: NDArray) -> NDArray:
    """The rank (V,) of each video's captions; of every video's captions only the best one competes.

    Args:
        scores: (C, V).
        caption_video: (C,), the video of each caption.
    """
    num_videos = scores.shape[1]
    best = np.full((num_videos, num_videos), -np.inf)
    np.maximum.at(best, caption_video, scores)
    return best_ranks(best.T, np.eye(num_videos, dtype=bool))


def lower_median(ranks: NDArray) -> float:
    """The median of ranks (Q,); for an even count the lower of the two middle ranks, as in `torch.median`."""
    return float(np.sort(ranks)[(len(ranks) - 1) // 2])
