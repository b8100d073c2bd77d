"""Several views of a video in recognition: sliding windows over it, and each of them mirrored.

What is averaged over the views of a video is the probability of each class, or the cosine with each prompt.
Shapes: N views of V videos, C classes, E width of embeddings, B clips.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from configs.recognition import RecognitionEvaluationConfig
from datasets.samples import Clip
from datasets.sampling import Windows
from datasets.video_text import VideoTextDataset
from engine.distributed import gather_objects
from tasks.base import VideoTextTask
from tasks.clips import embed_clip
from tasks.metrics.ranks import average_windows
from tasks.metrics.recognition import unit


class Views(NamedTuple):
    """The embeddings of all views.

    Attributes:
        positions: of the videos in their data set, ascending.
        embeddings: (N, E), the views of a video one after the other.
        video: (N,) int64, the place in `positions` of the video that each view is of.
    """

    positions: list[int]
    embeddings: NDArray
    video: NDArray

    def averaged(self, values_NX: NDArray) -> NDArray:
        """The mean (V, X) over the views of each video."""
        return average_windows(values_NX, self.video, len(self.positions))

    def mean_embeddings(self) -> NDArray:
        """One embedding a video (V, E): the mean of unit vectors, whose product with a text is the mean cosine.

        A single view is returned as it is.
        """
        return self.embeddings if len(self.embeddings) == len(self.positions) else self.averaged(unit(self.embeddings))

    def mean_logits(self, logits_NC: NDArray) -> NDArray:
        """The logarithm (V, C) of the mean probabilities; of a single view its logits as they are."""
        if len(self.embeddings) == len(self.positions):
            return logits_NC
        probabilities = torch.from_numpy(logits_NC).double().softmax(dim=1).numpy()
        # Smaller ones than any float64 stay behind all others.
        return np.log(np.maximum(self.averaged(probabilities), np.finfo(np.float64).tiny))


def windows_of(evaluation: RecognitionEvaluationConfig) -> Windows | None:
    """The windows that each video is shown by; None for the usual single clip."""
    return Windows(evaluation.windows) if evaluation.windows > 1 else None


def embed_views(
    task: VideoTextTask, data: VideoTextDataset, evaluation: RecognitionEvaluationConfig, failed: list[dict[str, Any]]
) -> Views:
    """The views of the videos that can be read, split over the processes; every process gets all of them.

    What this process cannot read is added to `failed`.
    """
    own: list[tuple[int, NDArray]] = []
    for positions, clips in task.each_clip(data, evaluation.batch_size, failed):
        own += embed_clips(task, positions, clips, evaluation)
    return in_order([row for part in gather_objects(own) for row in part])


def embed_clips(
    task: VideoTextTask, positions: list[int], clips: Clip, evaluation: RecognitionEvaluationConfig
) -> list[tuple[int, NDArray]]:
    """The embedding (E,) of each clip of a batch, and of its mirror image, with the position of its video."""
    found: list[tuple[int, NDArray]] = []
    # Videos have many windows: encode no more of them at once than videos otherwise.
    for first in range(0, len(positions), evaluation.batch_size):
        part = slice(first, first + evaluation.batch_size)
        clip = clips if len(positions) <= evaluation.batch_size else Clip.of_pixels(clips.pixels[part])
        for shown in (clip, mirrored(clip)) if evaluation.mirror else (clip,):
            rows = embed_clip(task.model, shown).float().cpu().numpy()
            found += zip(positions[part], rows, strict=True)
    return found


def mirrored(clip: Clip) -> Clip:
    """The clip with left and right exchanged; it has no extras, which would have to be mirrored too."""
    assert not clip.extras, "the configuration refuses mirror images of clips with extras"
    return clip._replace(pixels=clip.pixels.flip(-1))


def in_order(views: list[tuple[int, NDArray]]) -> Views:
    """Views by the position of their video; those of one video keep their order."""
    ordered = sorted(views, key=lambda view: view[0])
    positions, video = np.unique(np.array([position for position, _ in ordered], np.int64), return_inverse=True)
    rows = np.stack([row for _, row in ordered]) if ordered else np.zeros((0, 1))
    return Views(positions.tolist(), rows, video)
