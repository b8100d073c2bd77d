"""Matching logits of pairs of texts and videos, for reranking.

Each text is read as seldom as the model allows: once, if its states can be fused with any video (`StateMatcher`), or
else once a video.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.protocols import DualEncoder, Matcher, ReadsTexts, StateMatcher
from tasks.base import progress_bar
from tasks.chosen_tokens import TokenShare, match_once
from tasks.tokenized_texts import TEXTS_AT_ONCE, TokenizedTexts

TOKENS_AT_ONCE = 2**18
"""How many tokens' states exist at a time: 1 GiB of 1024 floats each."""
ALL_TOKENS = TokenShare()
StoredTokens = Mapping[int, Callable[[], Tensor]]
"""What reads the tokens (1, N, D) of each of a process's videos."""


class PairMatcher:
    """Matches videos with texts.

    Args:
        model: the model, in evaluation.
        value: turns the logits (P, 2) of pairs into one value each.
        texts: all texts.
        batch_size: texts that are matched with a video at a time.
        some: the share of a video's tokens that texts attend to.
        embeddings: those of all texts (T, E), which a share that is chosen by the text needs.
    """

    def __init__(
        self,
        model: Matcher,
        value: Callable[[Tensor], Tensor],
        texts: TokenizedTexts,
        device: torch.device,
        batch_size: int,
        some: TokenShare = ALL_TOKENS,
        embeddings: NDArray | None = None,
    ) -> None:
        self.model, self.value, self.texts = model, value, texts
        self.device, self.batch_size = device, batch_size
        self.some, self.embeddings = some, embeddings

    def match_all(self, stored: StoredTokens, texts_of: Callable[[int], NDArray]) -> list[NDArray]:
        """The values of the pairs of each stored video, in the order of `texts_of` the video."""
        if not isinstance(self.model, StateMatcher):
            videos = progress_bar(list(stored), "reranking")
            return [self.match(stored[video](), texts_of(video)) for video in videos]

        chosen = [texts_of(video) for video in stored]
        values = [np.zeros(len(of_video), np.float32) for of_video in chosen]
        needed = np.unique(np.concatenate([np.zeros(0, np.int64), *chosen]))

        # Nearly always one block holds all texts. With more, each video is read once for each.
        for block in in_blocks(needed, self.texts):
            states = TextStates(self.model, self.texts, block, self.device)
            for row, video in enumerate(progress_bar(list(stored), "reranking")):
                in_block = np.isin(chosen[row], block, assume_unique=True)
                if in_block.any():
                    values[row][in_block] = self.match(stored[video](), chosen[row][in_block], states)
        return values

    def match(self, tokens_1ND: Tensor, chosen: NDArray, states: "TextStates | None" = None) -> NDArray:
        """The values (P,) of a video with the `chosen` texts (P,), matched in batches of similar lengths.

        With `states` of these texts, they are fused with the video and not read again.
        """
        tokens_1ND = self.some.of_video(tokens_1ND.to(self.device))
        memory = None if states is None else self.model.project(tokens_1ND)

        order = self.texts.by_length(chosen)
        places = self.chosen_tokens(tokens_1ND, order)
        values = []
        for first in range(0, len(order), self.batch_size):
            batch = slice(first, first + self.batch_size)
            part, of_part = order[batch], None if places is None else places[batch]
            ids, mask = self.texts.batch(part, self.device)
            if states is None or memory is None:
                logits = match_once(self.model, tokens_1ND, ids, mask, of_part)
            else:
                assert isinstance(self.model, StateMatcher)
                videos = memory if of_part is None else memory.chosen(of_part)
                logits = self.model.match_states([(len(part), videos)], states.batch(part, mask), mask)
            values.append(self.value(logits))

        return torch.cat(values).cpu().numpy()[np.argsort(order)]

    def chosen_tokens(self, tokens_1ND: Tensor, texts: NDArray) -> Tensor | None:
        """The places (P, M) of the tokens that each text has chosen; None if all attend to the same."""
        if not self.some.is_by_text:
            return None
        assert self.embeddings is not None, "a share of the tokens is chosen by the texts' embeddings"
        assert isinstance(self.model, DualEncoder)
        embeddings = torch.from_numpy(self.embeddings[texts]).to(self.device)
        return self.some.of_texts(self.model, tokens_1ND, embeddings)


class TextStates:
    """The states of a block of texts on the device, one after the other without padding.

    Args:
        model: reads texts alone.
        texts: all texts.
        numbers: the texts of the block, ascending.
    """

    def __init__(self, model: ReadsTexts, texts: TokenizedTexts, numbers: NDArray, device: torch.device) -> None:
        # Read texts of like length together, so that batches need little padding.
        order = texts.by_length(numbers)
        parts = []
        for first in range(0, len(order), TEXTS_AT_ONCE):
            ids, mask = texts.batch(order[first : first + TEXTS_AT_ONCE], device)
            parts.append(model.encode_text(ids, mask).states[mask.bool()])
        self.states_RD = torch.cat(parts)

        # Where the states of each text begin.
        lengths = texts.lengths[order]
        self.numbers, self._starts = numbers, np.empty(len(numbers), np.int64)
        self._starts[np.searchsorted(numbers, order)] = np.cumsum(lengths) - lengths

    def batch(self, texts: NDArray, mask_PS: Tensor) -> Tensor:
        """The states (P, S, D) of texts of the block, zero where the mask is 0."""
        starts = torch.from_numpy(self._starts[np.searchsorted(self.numbers, texts)]).to(mask_PS.device)
        places_PS = (starts.unsqueeze(1) + torch.arange(mask_PS.shape[1], device=mask_PS.device)) * mask_PS
        states = self.states_RD.index_select(0, places_PS.flatten()).unflatten(0, mask_PS.shape)
        return states * mask_PS.unsqueeze(-1).to(states.dtype)


def in_blocks(numbers: NDArray, texts: TokenizedTexts) -> Iterator[NDArray]:
    """Cut text numbers into blocks of `TOKENS_AT_ONCE` tokens at most; a longer text is a block of its own."""
    first = 0
    while first < len(numbers):
        ends = texts.lengths[numbers[first:]].cumsum()
        size = max(1, int(np.searchsorted(ends, TOKENS_AT_ONCE, side="right")))
        yield numbers[first : first + size]
        first += size
