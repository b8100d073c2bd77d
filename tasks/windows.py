"""Evaluation over sliding windows: which frames they have, and one embedding a video from all of its windows."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.evaluation import EvaluationConfig
from datasets.samples import Clip
from datasets.sampling import Windows
from models.protocols import AveragesWindows, DualEncoder
from tasks.clips import embed_clip
from tasks.metrics.ranks import average_windows


def windows_of(evaluation: EvaluationConfig) -> Windows | None:
    """The configured windows; None for the usual single clip."""
    return Windows(evaluation.windows, evaluation.window_stride) if evaluation.windows > 1 else None


def encode_windows(model: DualEncoder, video_BTCHW: Tensor) -> Tensor:
    """What of each window (B, E) is averaged: the model's choice, or else its embeddings."""
    if isinstance(model, AveragesWindows):
        return model.encode_windows(video_BTCHW)
    return embed_clip(model, Clip.of_pixels(video_BTCHW))


def embed_videos(model: DualEncoder, windows_WE: NDArray, positions: list[int]) -> tuple[list[int], NDArray]:
    """Videos in ascending order and their embeddings (V, E), from windows (W, E) and the video of each window."""
    videos, window_video = np.unique(np.array(positions, np.int64), return_inverse=True)
    mean = average_windows(windows_WE, window_video, len(videos))
    if isinstance(model, AveragesWindows):
        mean = model.embed_mean(torch.from_numpy(mean)).numpy()
    return videos.tolist(), mean
