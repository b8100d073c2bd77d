"""Which text-video pairs the matching head scores, and their logits."""

import numpy as np
from numpy.typing import NDArray


class Shortlists:
    """The best videos of every text, the best texts of every video, and the logits of these pairs.

    Both directions share the logits: `texts_of` a video joins its own list with the texts that list the video, so a
    pair on both lists is scored once.

    Args:
        of_texts: (T, k), the videos on each text's list; no video twice in a row.
        of_videos: (V, l), the texts on each video's list; no text twice in a row.
    """

    def __init__(self, of_texts: NDArray, of_videos: NDArray) -> None:
        self.chosen = (of_texts, of_videos)
        self.logits = tuple(np.full(chosen.shape, np.nan, np.float32) for chosen in self.chosen)

        # An inverted index of `of_texts`: `_places` lists flat positions in it video by video, and video v's positions
        # end before `_ends[v]`.
        self._places = np.argsort(of_texts, axis=None, kind="stable")
        self._ends = np.bincount(of_texts.ravel(), minlength=len(of_videos)).cumsum()

    def texts_of(self, video: int) -> NDArray:
        """The texts on the video's list or with the video on theirs, ascending, each once."""
        return np.union1d(self.chosen[1][video], self._texts_at(self._places_of(video)))

    def put_first(self, video: int, logits: NDArray) -> NDArray:
        """Store the first logits, one for each of `texts_of` the video; returns the remaining logits."""
        of_texts, of_videos = self.logits
        texts, places = self.texts_of(video), self._places_of(video)

        # The texts are sorted, so a binary search finds each pair's logit.
        of_videos[video] = logits[np.searchsorted(texts, self.chosen[1][video])]
        of_texts.flat[places] = logits[np.searchsorted(texts, self._texts_at(places))]

        return logits[len(texts) :]

    def _texts_at(self, places: NDArray) -> NDArray:
        return places // self.chosen[0].shape[1]

    def _places_of(self, video: int) -> NDArray:
        return self._places[self._ends[video - 1] if video else 0 : self._ends[video]]
