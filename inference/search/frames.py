"""Which moments of a video are most like a text."""

import numpy as np
import torch
from torch import Tensor

from datasets.decode import DecodeError
from inference.api import EncodedTokens, TrainedModel
from inference.pictures.trace import grounded
from inference.trained import records_of
from tasks.data import video_text


def best_frames(
    model: TrainedModel,
    encoded: EncodedTokens,
    video: str,
    start: float | None,
    end: float | None,
    text_embedding: Tensor,
    most: int,
) -> tuple[tuple[float, float], ...]:
    """(seconds, similarity) of the `most` frames of an encoded video that match a text (E,) best, the best first.

    A frame's similarity is the mean over its patches of the cosine of the text with each patch's token, projected to
    the shared space (`grounded`). That is a hint and no score: in training texts meet the mean of all tokens, never one
    token alone. Seconds count from the video's first frame. Of frames that became the same tokens, and of those that a
    short video repeats, the best or first one stands for all. ValueError if the file does not say
    when its frames are shown.
    """
    with model.computing():
        cosine = grounded(model.model, encoded, text_embedding)
    try:
        seconds = video_text(model.config, records_of(video, start, end), training=False).frame_times(0)
    except DecodeError as error:
        raise ValueError(f"{video}: its frames have no times ({error.reason}); give another file") from error
    held = ~np.isnan(cosine)  # what was dropped has no token
    similarity = np.where(held, cosine, 0.0).sum(axis=1) / held.sum(axis=1).clip(min=1)
    chosen: list[int] = []
    for frame in np.argsort(-similarity, kind="stable").tolist():
        is_new = not any(
            seconds[frame] == seconds[other] or torch.equal(encoded.origins[frame], encoded.origins[other])
            for other in chosen
        )
        if held[frame].any() and is_new and len(chosen) < most:
            chosen.append(frame)
    return tuple((float(seconds[frame]), float(similarity[frame])) for frame in chosen)
