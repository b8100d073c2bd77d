"""Clips cut out of a video with the words that are spoken in them."""

import numpy as np
import pytest

from datasets.annotations.timed_words import (
    SegmentDraw,
    TimedWord,
    clip_of_word,
    cut_segment,
    draw_segment,
    transcripts,
)


def test_clips_by_hand() -> None:
    segment = cut_segment(60, SegmentDraw(seconds=4, start=10, fraction=0.5))
    assert segment.starts == (10.5, 15.5, 20.5, 25.5) and segment.ends == (14.5, 19.5, 24.5, 29.5)
    assert [clip_of_word(time, segment) for time in (10.5, 10.6, 14.5, 15.0, 15.6, 29.4, 30.0)] == [
        -1, 0, -1, -1, 1, 3, -1,
    ]  # fmt: skip
    words = [TimedWord(11.0, "one"), TimedWord(12.0, ""), TimedWord(13.0, "two three"), TimedWord(15.0, "lost")]
    assert transcripts(words, segment) == ["one  two three ", "", "", ""]


def test_a_segment_never_passes_the_last_second() -> None:
    segment = cut_segment(30, SegmentDraw(seconds=5, start=6, fraction=0.75))
    assert segment.ends[-1] == 29.0


def test_short_videos_are_used_whole_and_shorter_ones_refused() -> None:
    segment = cut_segment(8, SegmentDraw(seconds=3, start=0, fraction=0.9))
    assert segment.starts == (0.0, 2.0, 4.0, 6.0) and segment.ends == (1.0, 3.0, 5.0, 7.0)
    with pytest.raises(ValueError, match="4 seconds is too short for 4 clips.*at least 5 seconds"):
        cut_segment(4, SegmentDraw(seconds=3, start=0, fraction=0.0))
    assert cut_segment(5, SegmentDraw(seconds=3, start=0, fraction=0.0)).ends[0] == 0.25


def test_draws_reach_every_length_and_start() -> None:
    draws = [draw_segment(22, np.random.default_rng(seed)) for seed in range(300)]
    found = {(draw.seconds, draw.start) for draw in draws}
    # 22 - 15 - 1 = 6, 22 - 19 - 1 = 2, and 23 seconds do not fit.
    assert found == {(3, start) for start in range(7)} | {(4, start) for start in range(3)} | {(5, 0)}
    assert all(0 <= draw.fraction < 1 for draw in draws)
