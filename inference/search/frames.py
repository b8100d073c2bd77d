"""Find the moments of a video that match a text best."""

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
    """(seconds, similarity) of the `most` frames that match a text (E,) best, best first.

    A frame's similarity is the mean, over its patches, of the cosine between the text and the patch's token, projected
    to the shared space (`grounded`). It is a hint, not a score: training compares texts with the mean of all tokens,
    never with a single one. Seconds count from the video's first frame. Frames that merged into the same tokens, and
    frames that a short video repeats, appear once, as the best or first of them. ValueError if the file does not say
    when its frames are shown.
    """
    with model.computing():
        cosine = grounded(model.model, encoded, text_embedding)

    try:
        seconds = video_text(model.config, records_of(video, start, end), training=False).frame_times(0)
    except DecodeError as error:
        raise ValueError(f"{video}: its frames have no times ({error.reason}); give another file") from error

    # Average each frame's cosines over the patches that still have a token.
    held = ~np.isnan(cosine)
    similarity = np.where(held, cosine, 0.0).sum(axis=1) / held.sum(axis=1).clip(min=1)

    # From the best frame down, skip frames that show a moment or hold tokens already chosen.
    chosen: list[int] = []
    for frame in np.argsort(-similarity, kind="stable").tolist():
        is_new = not any(
            seconds[frame] == seconds[other] or torch.equal(encoded.origins[frame], encoded.origins[other])
            for other in chosen
        )
        if held[frame].any() and is_new and len(chosen) < most:
            chosen.append(frame)

    return tuple((float(seconds[frame]), float(similarity[frame])) for frame in chosen)
