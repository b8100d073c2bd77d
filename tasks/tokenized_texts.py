"""Texts that are tokenized once, however many batches they appear in."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TEXTS_AT_ONCE = 256


class TokenizedTexts:
    """The ids of many texts, concatenated, with the length of each text; 4 bytes an id.

    Args:
        texts: the texts.
        tokenize: turns B texts into ids and mask (B, S), padded at the end.
        pad_id: the id that pads a text in a batch of longer ones.
    """

    def __init__(self, texts: list[str], tokenize: Callable[[list[str]], tuple[Tensor, Tensor]], pad_id: int) -> None:
        self.pad_id = pad_id
        ids, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            batch_ids, batch_mask = (part.cpu().numpy() for part in tokenize(texts[first : first + TEXTS_AT_ONCE]))
            ids.append(batch_ids[batch_mask.astype(bool)].astype(np.int32))
            lengths.append(batch_mask.sum(axis=1))
        self.ids, self.lengths = np.concatenate(ids), np.concatenate(lengths)
        self._starts = np.cumsum(self.lengths) - self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def by_length(self, texts: NDArray) -> NDArray:
        """The same text numbers, shortest text first, so that batches of neighbours need little padding."""
        return texts[np.argsort(self.lengths[texts], kind="stable")]

    def batch(self, texts: NDArray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, S), int64, of the texts with these numbers, padded to the longest."""
        lengths = self.lengths[texts, None]
        place = np.arange(lengths.max())
        mask = place < lengths
        ids = np.where(mask, self.ids[np.where(mask, self._starts[texts, None] + place, 0)], self.pad_id)
        return torch.from_numpy(ids.astype(np.int64)).to(device), torch.from_numpy(mask.astype(np.int64)).to(device)
