"""Which frames of a video to take: pure functions (num_frames, length, rng) -> sorted int64 indices below length.

Rules of TIMED_SAMPLERS get the times of the frames in the place of their number. `chooser` makes either kind into what
the decoder asks.

All randomness of the data path comes from `generator`, never from a worker or from global state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, get_args

import numpy as np

from configs.sampling import EvalSampling, Sampling

# What numbers are drawn for. Apart, so that an epoch's order and its first item, say, do not share their draws.
STREAMS = {
    "order": 1,
    "frames": 2,
    "augmentation": 3,
    "replacement": 4,
    "words": 5,
    "rows": 6,
    "sources": 7,
    "segment": 8,
    "segment_order": 9,
    "budget": 10,
}


SHORTEST_PART = 0.7
"""The smallest share of a video that `interval_random_part` takes."""
RATE_ERROR = 0.01
"""In frames a second: how far a rate that is found from times may lie below the true one."""


@dataclass(frozen=True)
class ByTime:
    """A choice of frames by their times (N,), in seconds from the video's first frame; the same whenever it is made."""

    choose: Callable[[np.ndarray], np.ndarray]


def generator(stream: str, seed: int, epoch: int, index: int = 0) -> np.random.Generator:
    """The generator of one stream of STREAMS for one item of one epoch."""
    return np.random.default_rng((STREAMS[stream], seed, epoch, index))


Sampler = Callable[[int, int, np.random.Generator], np.ndarray]
EDGE = 1e-6
"""Of a frame: shares that are rounded may lie a little below the frame that they mean."""


def uniform(num_frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """The middle frames of `num_frames` equal segments, so the whole video is covered; short videos repeat frames."""
    return (2 * np.arange(num_frames, dtype=np.int64) + 1) * length // (2 * num_frames)


def uniform_floor(num_frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """The reference's sampling, for its released numbers: a step that is cut down to a whole number.

    Up to half of the video is never seen, and a video of fewer than `num_frames` frames gives its first frame alone.
    """
    return np.arange(num_frames, dtype=np.int64) * (length // num_frames)


def headtail(num_frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Half of the frames at random from the first half of the video, the others from the second half.

    Of an odd number the second half gives one more; a video of one frame has no first half.
    """
    middle = length // 2
    head = num_frames // 2 if middle else 0
    return np.concatenate([_draw(head, 0, middle, rng), _draw(num_frames - head, middle, length, rng)])


def random(num_frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Frames at random from the whole video."""
    return _draw(num_frames, 0, length, rng)


def interval_middle(num_frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """The middle frame of each of `intervals`, TVTSv2's rule of evaluation; short videos repeat frames.

    Departs from the reference, whose clips of short videos end in frames of the mean colour: see `all_frames_once`.
    """
    low, high = intervals(num_frames, length)
    return np.maximum(low, (low + high - 1) // 2).clip(max=length - 1)


def all_frames_once(num_frames: int, length: int) -> np.ndarray:
    """As `interval_middle`, but a video with fewer frames than are asked for gives each of them once."""
    if length < num_frames:
        return np.arange(length, dtype=np.int64)
    low, high = intervals(num_frames, length)
    return (low + high - 1) // 2


def interval_random(num_frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """A frame at random from each of `intervals`, TVTSv2's rule of training; short videos repeat frames."""
    low, high = intervals(num_frames, length)
    return rng.integers(low, np.maximum(high, low + 1)).clip(max=length - 1)


def interval_random_reference(num_frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """`interval_random` as released, where the last frame of an interval is never drawn.

    An interval of a single frame, where the reference fails and takes another video, gives that frame.
    """
    low, high = reference_draws(num_frames, length)
    return rng.integers(low, np.maximum(high, low), endpoint=True).clip(max=length - 1)


def interval_middle_padded(num_frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """As `interval_middle`, but a short video gives each frame once and then its last one (UMT's `middle`)."""
    return _padded(all_frames_once(num_frames, length), num_frames)


def interval_random_part(num_frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """`interval_random` on a part of the video, from SHORTEST_PART to all of it: actions go on faster or slower."""
    part = max(1, round(length * rng.uniform(SHORTEST_PART, 1.0)))
    first = rng.integers(length - part + 1)
    return first + interval_random(num_frames, part, rng)


def interval_random_padded(num_frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """A frame at random from each interval, where a short video has one interval a frame and repeats its last one.

    UMT's `rand`.
    """
    low, high = intervals(min(num_frames, length), length)
    return _padded(rng.integers(low, high), num_frames)


def ends(num_frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Frames at equal distances from the first to the last, TVTSv2's rule of feature extraction."""
    return np.linspace(0, length - 1, num_frames).astype(np.int64)


def per_second(num_frames: int, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The first frame of each second, and of these `num_frames` at equal distances from the first to the last.

    CLIP4Clip's and STOA-VLP's rule, which counts seconds in frames, by the frame rate cut to a whole number. Videos of
    fewer seconds repeat frames.
    """
    length = len(times)
    duration = float(times[-1] - times[0])
    # Stamps are rounded, in some files to a millisecond, so that a rate of 25 may be found a little lower.
    rate = max(int((length - 1) / duration + RATE_ERROR), 1) if duration > 0 else length
    first_of_second = np.arange(0, length, rate, dtype=np.int64)
    return first_of_second[np.linspace(0, len(first_of_second) - 1, num_frames).astype(np.int64)]


def intervals(num_frames: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """First frame of each of `num_frames` intervals of nearly equal length, and that of the next interval."""
    bounds = np.linspace(0, length, num_frames + 1).astype(np.int64)
    return bounds[:-1], bounds[1:]


def reference_draws(num_frames: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest frame that the reference draws from each interval; the highest is lower where it cannot."""
    low, high = intervals(num_frames, length)
    return low, high - 2


def window_starts(length: int, num_frames: int, stride: int) -> np.ndarray:
    """How many frames each sliding window lies after the first; all lie within one interval."""
    return np.arange(0, max(1, length // (num_frames + 1)), stride, dtype=np.int64)


def spread_starts(length: int, num_frames: int, windows: int) -> np.ndarray:
    """The same for at most `windows` windows at equal distances."""
    room = max(1, length // (num_frames + 1))
    return np.unique(np.arange(windows, dtype=np.int64) * room // windows)


def window(num_frames: int, length: int, start: int) -> np.ndarray:
    """The frames of the sliding window that lies `start` frames after the first one."""
    low, _ = intervals(num_frames, length)
    return (low + start).clip(max=length - 1)


class Windows(NamedTuple):
    """Sliding windows over a video: at most `windows`, `stride` frames apart; at equal distances where it is None."""

    windows: int
    stride: int | None = None

    def frames(self, num_frames: int, length: int) -> np.ndarray:
        """The frames of all windows, in ascending order: those of every window in an interval, then the next."""
        if self.stride is None:
            starts = spread_starts(length, num_frames, self.windows)
        else:
            starts = window_starts(length, num_frames, self.stride)[: self.windows]
        return np.stack([window(num_frames, length, int(start)) for start in starts], axis=1).reshape(-1)


def frames_of_span(num_frames_in_file: int, duration: float, start: float, end: float) -> tuple[int, int]:
    """The first frame of a part of a video from `start` to `end` in seconds, and how many frames the part has."""
    rate = num_frames_in_file / duration
    return int(start * rate), int((end - start) * rate)


def of_clips(
    sampler: Sampler, num_frames: int, length: int, bounds: Sequence[tuple[float, float]], rng: np.random.Generator
) -> np.ndarray:
    """Equally many frames of each of several clips, in order; a clip's bounds are shares of the `length` frames."""
    each, rest = divmod(num_frames, len(bounds))
    assert not rest, f"{num_frames} frames of {len(bounds)} clips"
    chosen = []
    for low, high in bounds:
        # A clip shorter than a frame shows the frame that it begins in.
        first = min(int(low * length + EDGE), length - 1)
        stop = min(max(first + 1, int(high * length + EDGE)), length)
        chosen.append(first + sampler(each, stop - first, rng))
    return np.concatenate(chosen)


def _padded(indices: np.ndarray, num_frames: int) -> np.ndarray:
    """Repeat the last index until there are `num_frames`."""
    return np.concatenate([indices, np.repeat(indices[-1:], num_frames - len(indices))])


def _draw(count: int, low: int, high: int, rng: np.random.Generator) -> np.ndarray:
    """`count` sorted draws from low ... high - 1, each as often as every other, give or take one."""
    if count == 0:
        return np.empty(0, dtype=np.int64)
    copies, rest = divmod(count, high - low)
    extra_frames = rng.choice(np.arange(low, high), rest, replace=False)
    return np.sort(np.concatenate([np.repeat(np.arange(low, high), copies), extra_frames]))


SAMPLERS: dict[str, Sampler] = {
    "uniform": uniform,
    "uniform_floor": uniform_floor,
    "headtail": headtail,
    "random": random,
    "interval_middle": interval_middle,
    "interval_middle_padded": interval_middle_padded,
    "interval_random": interval_random,
    "interval_random_padded": interval_random_padded,
    "interval_random_reference": interval_random_reference,
    "interval_random_part": interval_random_part,
    "ends": ends,
}
"""`video.train_sampling` and `video.eval_sampling` by name."""

TIMED_SAMPLERS: dict[str, Callable[[int, np.ndarray, np.random.Generator], np.ndarray]] = {"per_second": per_second}
"""More of them, which get the times (N,) of the frames in seconds."""

RANDOM_SAMPLERS = tuple(name for name in get_args(Sampling) if name not in get_args(EvalSampling))
"""Those that take other frames in every epoch."""


def chooser(
    name: str, num_frames: int, new_rng: Callable[[], np.random.Generator]
) -> Callable[[int], np.ndarray] | ByTime:
    """The rule of that name as `datasets.decode` asks it, which may be more than once.

    Each time takes a new generator: the second answer has to equal the first.
    """
    if name in TIMED_SAMPLERS:
        return ByTime(partial(_choose_by_time, name, num_frames, new_rng))
    return partial(_choose_by_number, name, num_frames, new_rng)


def _choose_by_number(
    name: str, num_frames: int, new_rng: Callable[[], np.random.Generator], length: int
) -> np.ndarray:
    return SAMPLERS[name](num_frames, length, new_rng())


def _choose_by_time(
    name: str, num_frames: int, new_rng: Callable[[], np.random.Generator], times: np.ndarray
) -> np.ndarray:
    return TIMED_SAMPLERS[name](num_frames, times, new_rng())
