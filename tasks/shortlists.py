"""Which pairs of text and video are matched, and their logits."""

import numpy as np
from numpy.typing import NDArray


class Shortlists:
    """The best videos of every text and the best texts of every video, and the logit of each such pair.

    A pair that is on the lists of both is one of `texts_of` its video: it is scored once, and both get its logit.

    Args:
        of_texts: (T, k) videos, each once a row.
        of_videos: (V, l) texts, each once a row.
    """

    def __init__(self, of_texts: NDArray, of_videos: NDArray) -> None:
        self.chosen = (of_texts, of_videos)
        self.logits = tuple(np.full(chosen.shape, np.nan, np.float32) for chosen in self.chosen)
        # Where the videos stand in the lists of texts, video by video.
        self._places = np.argsort(of_texts, axis=None, kind="stable")
        self._ends = np.bincount(of_texts.ravel(), minlength=len(of_videos)).cumsum()

    def texts_of(self, video: int) -> NDArray:
        """The texts that are on the video's list or have it on theirs, in their order, each once."""
        return np.union1d(self.chosen[1][video], self._texts_at(self._places_of(video)))

    def put_first(self, video: int, logits: NDArray) -> NDArray:
        """Keep the first of `logits`, which are those of `texts_of` the video; returns what follows them."""
        of_texts, of_videos = self.logits
        texts, places = self.texts_of(video), self._places_of(video)
        of_videos[video] = logits[np.searchsorted(texts, self.chosen[1][video])]
        of_texts.flat[places] = logits[np.searchsorted(texts, self._texts_at(places))]
        return logits[len(texts) :]

    def _texts_at(self, places: NDArray) -> NDArray:
        return places // self.chosen[0].shape[1]

    def _places_of(self, video: int) -> NDArray:
        return self._places[self._ends[video - 1] if video else 0 : self._ends[video]]
