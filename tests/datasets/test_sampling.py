"""Frame sampling against brute force and the reference's own expression."""

from fractions import Fraction
from typing import get_args

import numpy as np
import pytest

from configs.sampling import Sampling
from datasets import sampling
from datasets.sampling import (
    SAMPLERS,
    Windows,
    all_frames_once,
    ends,
    frames_of_span,
    generator,
    headtail,
    interval_middle,
    interval_middle_padded,
    interval_random,
    interval_random_padded,
    interval_random_part,
    interval_random_reference,
    intervals,
    random,
    spread_starts,
    uniform,
    uniform_floor,
    window,
    window_starts,
)

LENGTHS = [*range(1, 70), 95, 100, 190, 900, 20000]
COUNTS = (1, 2, 5, 8, 32, 96)


def rng(index: int = 0) -> np.random.Generator:
    return generator("frames", 7, 0, index)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("count", COUNTS)
def test_sorted_indices_of_the_video(name: str, count: int) -> None:
    for length in LENGTHS:
        indices = SAMPLERS[name](count, length, rng())
        assert indices.dtype == np.int64 and len(indices) == count
        assert 0 <= indices[0] and indices[-1] < length and (np.diff(indices) >= 0).all()


@pytest.mark.parametrize("count", COUNTS)
def test_uniform_takes_the_middle_of_each_segment(count: int) -> None:
    for length in LENGTHS:
        middles = [int((Fraction(segment) + Fraction(1, 2)) * length / count) for segment in range(count)]
        assert uniform(count, length, rng()).tolist() == middles


def test_uniform_sees_the_whole_video_and_every_frame_of_a_short_one() -> None:
    assert uniform(32, 63, rng())[-1] == 62
    assert uniform(8, 4, rng()).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("count", COUNTS)
def test_uniform_floor_is_the_reference(count: int) -> None:
    for length in LENGTHS:
        reference = np.arange(0, length, length / count, dtype=int)[:count]
        assert uniform_floor(count, length, rng()).tolist() == reference.tolist()


def test_uniform_floor_misses_the_end_and_repeats_the_first_frame_of_short_videos() -> None:
    assert uniform_floor(32, 63, rng())[-1] == 31
    assert uniform_floor(96, 60, rng()).tolist() == [0] * 96


@pytest.mark.parametrize("count", COUNTS)
def test_headtail_takes_half_of_its_frames_from_each_half(count: int) -> None:
    for length in LENGTHS:
        first_half = (headtail(count, length, rng()) < length // 2).sum()
        assert first_half == (count // 2 if length > 1 else 0)


def test_random_repeats_no_frame_before_all_are_taken() -> None:
    for count in COUNTS:
        for length in LENGTHS:
            _, times = np.unique(random(count, length, rng()), return_counts=True)
            # All frames are used equally often, give or take one; those left out count as 0.
            least = times.min() if len(times) == length else 0
            assert times.max() - least <= 1


def test_random_reaches_every_frame() -> None:
    drawn = np.concatenate([random(3, 12, rng(index)) for index in range(200)])
    assert set(drawn.tolist()) == set(range(12))
    tail = np.concatenate([headtail(3, 12, rng(index)) for index in range(200)])
    assert set(tail.tolist()) == set(range(12))


def test_generator_follows_from_its_arguments_and_each_of_them_counts() -> None:
    def draw(stream: str, seed: int, epoch: int, index: int) -> float:
        return generator(stream, seed, epoch, index).random()

    base = draw("frames", 1, 2, 3)
    assert base == draw("frames", 1, 2, 3)
    others = [draw("order", 1, 2, 3), draw("frames", 0, 2, 3), draw("frames", 1, 0, 3), draw("frames", 1, 2, 0)]
    assert len({base, *others}) == 5


def test_samplers_are_those_of_the_config() -> None:
    assert {*SAMPLERS, *sampling.TIMED_SAMPLERS} == set(get_args(Sampling))
    assert set(sampling.RANDOM_SAMPLERS) < set(SAMPLERS)


def test_per_second_by_hand() -> None:
    """Seconds are counted in frames, by the rate cut to a whole number; then 12 of them from first to last."""

    def chosen(length: int, rate: float, num_frames: int = 12) -> list[int]:
        return sampling.per_second(num_frames, np.arange(length) / rate, rng()).tolist()

    # 29.97 is 29 frames a second: 0, 29, 58, ... of 600 frames there are 21, of which every 20/11th is taken.
    assert chosen(600, 29.97) == [29 * int(place * 20 / 11) for place in range(12)]
    assert chosen(250, 25) == [25 * int(place * 9 / 11) for place in range(12)]
    assert chosen(250, 25, num_frames=4) == [0, 75, 150, 225]
    # Stamps of whole milliseconds are still 30 frames a second; a part of a video begins later.
    rounded = np.round(np.arange(90) / 30, 3) + 7
    assert sampling.per_second(3, rounded, rng()).tolist() == [0, 30, 60]
    # Less than a second, a single frame, and less than a frame a second.
    assert chosen(20, 25) == [0] * 12 and chosen(1, 25) == [0] * 12
    assert chosen(5, 0.5, num_frames=3) == [0, 2, 4]


def test_interval_rules_by_hand() -> None:
    # 10 frames in 4 intervals: 0-1, 2-4, 5-6, 7-9.
    assert interval_middle(4, 10, rng()).tolist() == [0, 3, 5, 8]
    assert [values.tolist() for values in intervals(4, 10)] == [[0, 2, 5, 7], [2, 5, 7, 10]]
    drawn = np.array([interval_random(4, 10, rng(index)) for index in range(100)])
    assert [sorted(set(column.tolist())) for column in drawn.T] == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]
    released = np.array([interval_random_reference(4, 10, rng(index)) for index in range(100)])
    assert [sorted(set(column.tolist())) for column in released.T] == [[0], [2, 3], [5], [7, 8]]


def test_short_videos_repeat_frames_or_give_each_once() -> None:
    assert interval_middle(6, 3, rng()).tolist() == [0, 0, 1, 1, 2, 2]
    assert all_frames_once(6, 3).tolist() == [0, 1, 2]
    assert all_frames_once(4, 10).tolist() == interval_middle(4, 10, rng()).tolist()


def test_ends_takes_the_first_and_the_last_frame() -> None:
    assert ends(4, 11, rng()).tolist() == [0, 3, 6, 10]


def test_windows_stay_inside_the_intervals() -> None:
    starts = window_starts(100, 4, 6)
    assert starts.tolist() == [0, 6, 12, 18]
    assert window(4, 100, 18).tolist() == [18, 43, 68, 93]
    assert window_starts(3, 4, 6).tolist() == [0]
    assert spread_starts(100, 4, 3).tolist() == [0, 6, 13] and spread_starts(12, 4, 3).tolist() == [0, 1]
    for length in (1, 7, 100):
        for windows in (Windows(3), Windows(50), Windows(4, 6)):
            frames = windows.frames(4, length)
            assert frames.tolist() == sorted(frames) and len(frames) % 4 == 0 and frames[-1] < length
            # Interval by interval: the columns are the windows, and the first one begins every interval.
            assert frames.reshape(4, -1)[:, 0].tolist() == window(4, length, 0).tolist()
    assert Windows(3, 6).frames(4, 100).reshape(4, -1)[0].tolist() == [0, 6, 12]


def test_a_span_in_seconds_is_counted_in_frames() -> None:
    assert frames_of_span(900, 30, 5.25, 20.25) == (157, 450)


@pytest.mark.parametrize(
    ("count", "length", "expected"),
    [
        (4, 10, [0, 3, 5, 8]),
        (4, 3, [0, 1, 2, 2]),
        (12, 100, [3, 11, 20, 28, 36, 45, 53, 61, 70, 78, 86, 95]),
        (3, 1, [0, 0, 0]),
    ],
)
def test_padded_middle_is_umts(count: int, length: int, expected: list[int]) -> None:
    assert interval_middle_padded(count, length, rng()).tolist() == expected


def test_padded_random_draws_every_frame_of_its_interval_and_repeats_the_last_of_a_short_video() -> None:
    drawn = np.array([interval_random_padded(4, 10, rng(index)) for index in range(200)])
    assert [sorted(set(column)) for column in drawn.T.tolist()] == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]
    assert interval_random_padded(5, 3, rng()).tolist() == [0, 1, 2, 2, 2]


def test_a_random_part_is_most_of_the_video_and_gives_a_frame_of_each_of_its_intervals() -> None:
    drawn = np.array([interval_random_part(8, 100, rng(index)) for index in range(300)])
    assert (np.diff(drawn, axis=1) >= 0).all() and drawn.min() >= 0 and drawn.max() <= 99
    spans = drawn[:, -1] - drawn[:, 0]
    assert spans.min() >= 0.7 * 100 * 6 / 8 and spans.max() > 90
    assert drawn[:, 0].max() > 25 and drawn[:, -1].min() < 75
    assert interval_random_part(4, 1, rng()).tolist() == [0, 0, 0, 0]
