"""Videos with timed words as training samples: four consecutive clips of a video, and what is spoken in each."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.data import SpeechConfig
from datasets import decode, sampling
from datasets.annotations.timed_words import NUM_CLIPS, Segment, draw_transcripts, transcripts, whole_segment
from datasets.pairs import PairTable
from datasets.spoken_table import unpacked
from datasets.video_text import VideoTextDataset


class SpeechDataset(VideoTextDataset):
    """Four consecutive clips of each video as one clip, in order of time, with four texts.

    Where clips are drawn, a sample's clips follow from (seed, epoch, draw); in evaluation from the video.
    A video that is too short, or silent, counts as unreadable: it is named and replaced.

    Args:
        speech: how videos are cut into clips.
        everything else: as for `VideoTextDataset`.
    """

    def __init__(self, table: PairTable, *, speech: SpeechConfig, **settings: Any) -> None:
        self.speech = speech
        self._durations: dict[int, float] = {}
        super().__init__(table, **settings)
        if speech.frames == "each_clip" and self.sampling in sampling.TIMED_SAMPLERS:
            raise ValueError(
                f"data.speech.frames: each_clip does not go with {self.sampling} sampling, which counts the seconds of "
                "a whole video; take another sampling, or set data.speech.frames=span"
            )
        if speech.frames == "each_clip" and self.num_frames % NUM_CLIPS:
            raise ValueError(
                f"data.speech.frames: each_clip cannot take equally many of {self.num_frames} frames from each of "
                f"{NUM_CLIPS} clips; make video.num_frames a multiple of {NUM_CLIPS}"
            )

    @property
    def training_texts(self) -> Iterator[str]:
        """All that is spoken in each video, cleaned."""
        return (self.clean(" ".join(word.word for word in unpacked(text))) for text in self.table.texts)

    @property
    def _part_is_random(self) -> bool:
        return self.speech.cut == "drawn" or super()._part_is_random

    def _texts_of(self, video: int, rows: list[int], epoch: int, draw: int) -> list[str]:
        try:
            _, texts = self._segment(video, epoch, draw)
        except decode.DecodeError:
            # An evaluated video that cannot be cut has no clip, and so no texts.
            return []
        return [self.clean(text) for text in texts]

    def _span(self, video: int, epoch: int, draw: int) -> tuple[float | None, float | None]:
        segment, _ = self._segment(video, epoch, draw)
        return segment.starts[0], segment.ends[-1]

    def _segment(self, video: int, epoch: int, draw: int) -> tuple[Segment, list[str]]:
        """The clips of a sample, and what is spoken in each. DecodeError if the video is too short or silent."""
        words, duration = unpacked(self.table.texts[video]), self._duration(video)
        if self.speech.cut == "whole":
            segment = whole_segment(duration)
            return segment, transcripts(words, segment)

        rng = sampling.generator("segment", self.seed, epoch, draw)
        try:
            return draw_transcripts(words, duration, rng, self.speech.tries)
        except ValueError as error:
            raise decode.DecodeError(self.table.path(video), str(error)) from None

    def _duration(self, video: int) -> float:
        """Seconds of a video: as the annotations give them, else as the file says."""
        _, duration = self.table.span(video)
        if duration is None:
            duration = self._durations.get(video) or decode.duration(self.table.file(video))
            self._durations[video] = duration
        return duration

    def _chooser(self, video: int, epoch: int, draw: int) -> decode.ChooseFrames:
        if self.speech.frames == "span":
            return super()._chooser(video, epoch, draw)

        segment, _ = self._segment(video, epoch, draw)
        start, seconds = segment.starts[0], segment.ends[-1] - segment.starts[0]
        bounds = [
            ((first - start) / seconds, (last - start) / seconds)
            for first, last in zip(segment.starts, segment.ends, strict=True)
        ]
        return partial(self._choose_of_clips, bounds, epoch, draw)

    def _choose_of_clips(
        self, bounds: Sequence[tuple[float, float]], epoch: int, draw: int, length: int
    ) -> NDArray[np.int64]:
        # A new generator each time: the second decoder has to get what the first one got.
        rng = sampling.generator("frames", self.seed, epoch, draw)
        return sampling.of_clips(sampling.SAMPLERS[self.sampling], self.num_frames, length, bounds, rng)
