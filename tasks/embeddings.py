"""Embeddings of many texts, split over the processes; every process gets all of them.

Shapes: P texts, E width of the shared space.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.distributed import gather_objects, rank, world_size
from tasks.base import VideoTextTask
from tasks.tokenized_texts import TEXTS_AT_ONCE, TokenizedTexts


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
