"""Words with the times at which they are spoken, and the clips that are cut from a video with their words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from datasets.text import has_words

NUM_CLIPS = 4
GAP = 1
"""Seconds between two clips; words in the gap belong to no clip."""
SHORTEST_CLIP, LONGEST_CLIP = 3, 5
"""In whole seconds."""
SHORTEST_VIDEO = NUM_CLIPS * GAP + 1
"""Whole seconds below which nothing of a clip is left between the gaps."""


class TimedWord(NamedTuple):
    """A word, or several that are spoken together, at a time in seconds; the word may be empty."""

    time: float
    word: str


@dataclass(frozen=True)
class Segment:
    """Consecutive clips of a video: their starts and ends in seconds."""

    starts: tuple[float, ...]
    ends: tuple[float, ...]


@dataclass(frozen=True)
class SegmentDraw:
    """The random choices for a segment: whole seconds per clip, and the start as whole seconds and a fraction."""

    seconds: int
    start: int
    fraction: float


def whole_starts(duration: int, seconds: int) -> tuple[int, int]:
    """The lowest and highest whole start of a segment; the highest is negative if the video is too short."""
    return 0, duration - segment_length(seconds) - 1


def segment_length(seconds: int) -> int:
    """Seconds from the start of the first clip to the end of the last."""
    return NUM_CLIPS * seconds + (NUM_CLIPS - 1) * GAP


def draw_segment(duration: int, rng: np.random.Generator) -> SegmentDraw:
    """Draw clips of 3, 4 or 5 seconds somewhere in a video of `duration` whole seconds."""
    seconds = int(rng.integers(SHORTEST_CLIP, LONGEST_CLIP, endpoint=True))
    lowest, highest = whole_starts(duration, seconds)
    start = int(rng.integers(lowest, highest, endpoint=True)) if highest >= lowest else 0
    return SegmentDraw(seconds, start, float(rng.random()))


def cut_segment(duration: int, draw: SegmentDraw) -> Segment:
    """Turn a draw into clips of equal length with a second between them.

    A video too short for the draw is used from its start to one second before its end. ValueError if that leaves
    nothing of a clip.
    """
    lowest, highest = whole_starts(duration, draw.seconds)
    if highest >= lowest:
        start = draw.start + draw.fraction
        end = min(duration - 1, start + segment_length(draw.seconds))
    else:
        start, end = 0.0, duration - 1

    length = (end - start - (NUM_CLIPS - 1) * GAP) / NUM_CLIPS
    if length <= 0:
        raise ValueError(
            f"a video of {duration} seconds is too short for {NUM_CLIPS} clips with {GAP} second between them; "
            f"at least {SHORTEST_VIDEO} seconds are needed"
        )

    starts = tuple(start + index * (length + GAP) for index in range(NUM_CLIPS))
    return Segment(starts, tuple(clip_start + length for clip_start in starts))


def whole_segment(duration: float) -> Segment:
    """Cut a whole video of `duration` seconds into clips of equal length, one right after the other."""
    edges = [duration * index / NUM_CLIPS for index in range(NUM_CLIPS + 1)]
    return Segment(tuple(edges[:-1]), tuple(edges[1:]))


def clip_of_word(time: float, segment: Segment) -> int:
    """Which clip a word belongs to, -1 if it is in a gap or outside; the edges of a clip are outside."""
    for index, (start, end) in enumerate(zip(segment.starts, segment.ends, strict=True)):
        if start < time < end:
            return index
    return -1


def transcripts(words: Sequence[TimedWord], segment: Segment) -> list[str]:
    """The speech of each clip: its words, each followed by a space; may be empty."""
    spoken = [""] * len(segment.starts)
    for word in words:
        index = clip_of_word(word.time, segment)
        if index >= 0:
            spoken[index] += f"{word.word} "
    return spoken


def draw_transcripts(
    words: Sequence[TimedWord], duration: float, rng: np.random.Generator, tries: int = 5
) -> tuple[Segment, list[str]]:
    """Draw clips of a video and their speech; draw again, up to `tries` times, while a clip has no words.

    If no draw has words in every clip, returns the draw with the most spoken clips. Departs from the reference, whose
    check for speech never takes effect: it behaves like `tries=1`. ValueError if the video is too short or silent.
    """
    best: tuple[int, Segment, list[str]] | None = None
    for _ in range(tries):
        segment = cut_segment(int(duration), draw_segment(int(duration), rng))
        spoken = transcripts(words, segment)
        count = sum(bool(text.strip()) for text in spoken)
        if best is None or count > best[0]:
            best = count, segment, spoken
        if count == len(spoken):
            break

    assert best is not None
    check_spoken(words)
    return best[1], best[2]


def check_spoken(words: Sequence[TimedWord]) -> None:
    """ValueError if no word of a transcript has a letter or a digit."""
    if not any(has_words(word.word) for word in words):
        raise ValueError("nothing is spoken in the video: its transcript has no words")
