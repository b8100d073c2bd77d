"""Embeddings of many videos or texts, split over the processes; every process gets all of them.

Shapes: V videos, P texts, E width of the shared space.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.video_text import VideoTextDataset
from engine.distributed import gather_objects, rank, world_size
from tasks.base import VideoTextTask
from tasks.clips import encode_clip
from tasks.tokenized_texts import TEXTS_AT_ONCE, TokenizedTexts


def embed_videos(
    task: VideoTextTask, data: VideoTextDataset, batch_size: int, failed: list[dict[str, Any]]
) -> tuple[list[int], NDArray]:
    """The positions of the videos that can be read, ascending, and their embeddings (V, E).

    Those that this process cannot read are added to `failed`.
    """
    own: dict[int, NDArray] = {}
    for positions, clip in task.each_clip(data, batch_size, failed):
        rows = encode_clip(task.model, clip).embedding.float().cpu().numpy()
        own.update(zip(positions, rows, strict=True))

    found = {position: row for part in gather_objects(own) for position, row in part.items()}
    positions = sorted(found)
    return positions, np.stack([found[position] for position in positions]) if positions else np.zeros((0, 1))


def embed_texts(task: VideoTextTask, texts: Sequence[str]) -> NDArray:
    """The embeddings (P, E) of texts, which are cleaned already."""
    tokenized = TokenizedTexts(list(texts), task.tokenize, task.tokenizer.pad_id)
    order = tokenized.by_length(np.arange(len(tokenized)))
    parts = [order[first : first + TEXTS_AT_ONCE] for first in range(0, len(order), TEXTS_AT_ONCE)]

    own = [
        task.model.encode_text(*tokenized.batch(part, task.device)).embedding.float().cpu().numpy()
        for part in parts[rank() :: world_size()]
    ]
    gathered = gather_objects(own)
    rows = [gathered[number % world_size()][number // world_size()] for number in range(len(parts))]
    return np.concatenate(rows)[np.argsort(order)]
