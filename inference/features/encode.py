"""Encode clips so that what becomes of one depends on nothing but that clip: not on its neighbours, nor on who encodes.

Matrix products of another shape may add up in another order, and so end in other last bits. So all batches of an
extraction have one shape. Then engines may share the clips out as they like, and a run that was killed and started
again gives the same bits. Asked for without tokens, embeddings of some models have other last bits.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.records import VideoTextRecord
from datasets.samples import Clip as Pixels
from datasets.video_text import VideoTextDataset
from inference.api import TrainedModel
from inference.features.sources import Clip
from tasks.data import video_text


def dataset_of(model: TrainedModel, clips: Iterable[Clip]) -> VideoTextDataset:
    """The clips as samples with the checkpoint's frames and pixels."""
    records = [VideoTextRecord(clip.file, ("",), clip.start, clip.end) for clip in clips]
    return video_text(model.config, records, training=False)


def rows_at_once(model: TrainedModel, batch_size: int, num_clips: int) -> int:
    """How many clips each batch of an extraction of `num_clips` has.

    A CPU gains little from batches of clips, unless the model is tiny; a GPU would be idle without them.
    """
    return 1 if model.device.type == "cpu" else min(batch_size, num_clips)


def encode(model: TrainedModel, arrays: Iterable[str], clips: Pixels, rows: int) -> dict[str, NDArray]:
    """The features (B, ...) float32 of B clips, by the names of the `arrays`, encoded `rows` at a time."""
    found: dict[str, list[NDArray]] = {name: [] for name in arrays}
    num_clips = len(clips.pixels)
    for first in range(0, num_clips, rows):
        # The last clip fills up a batch that is too short.
        positions = torch.arange(first, first + rows).clamp(max=num_clips - 1)
        selected, own = _select(clips, positions), min(rows, num_clips - first)
        if list(found) == ["embeddings"]:
            features: dict[str, torch.Tensor | None] = {"embeddings": model.embeddings_of(selected)}
        else:
            encoded = model.encode_clips(selected)
            features = {"embeddings": encoded.embedding, "tokens": encoded.tokens}

        for name, parts in found.items():
            feature = features[name]
            assert feature is not None, "arrays are those that the model has"
            parts.append(feature[:own].float().cpu().numpy())

    return {name: np.concatenate(parts) for name, parts in found.items()}


def _select(clips: Pixels, positions: torch.Tensor) -> Pixels:
    extras = {name: extra[positions] for name, extra in clips.extras.items()}
    return Pixels(clips.pixels[positions], clips.times[positions], extras)
