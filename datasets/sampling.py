"""Which frames of a video to take: pure functions (num_frames, length, rng) -> sorted int64 indices below length.

All randomness of the data path comes from `generator`, never from a worker or from global state.
"""

from collections.abc import Callable

import numpy as np

# What numbers are drawn for. Apart, so that an epoch's order and its first item, say, do not share their draws.
STREAMS = {"order": 1, "frames": 2, "augmentation": 3, "replacement": 4, "words": 5, "rows": 6, "sources": 7}


def generator(stream: str, seed: int, epoch: int, index: int = 0) -> np.random.Generator:
    """The generator of one stream of STREAMS for one item of one epoch."""
    return np.random.default_rng((STREAMS[stream], seed, epoch, index))


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


def _draw(count: int, low: int, high: int, rng: np.random.Generator) -> np.ndarray:
    """`count` sorted draws from low ... high - 1, each as often as every other, give or take one."""
    if count == 0:
        return np.empty(0, dtype=np.int64)
    copies, rest = divmod(count, high - low)
    drawn = rng.choice(np.arange(low, high), rest, replace=False)
    return np.sort(np.concatenate([np.repeat(np.arange(low, high), copies), drawn]))


SAMPLERS: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "uniform": uniform,
    "uniform_floor": uniform_floor,
    "headtail": headtail,
    "random": random,
}
"""`video.train_sampling` and `video.eval_sampling` by name."""

RANDOM_SAMPLERS = ("headtail", "random")
"""Those that take other frames in every epoch."""
