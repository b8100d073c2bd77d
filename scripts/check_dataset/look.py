"""One video, read as a run would read it; this is what the worker processes do."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from datasets import decode, sampling, transforms
from datasets.framing import Framing
from datasets.records import ShardMember
from scripts.parts.worker_pool import Beat

THUMBNAIL = 112
SHOWN = 8


@dataclass(frozen=True)
class Look:
    """One video of a part to read; `keep` asks for small pictures of it, `keep_clip` for all of its frames."""

    part: str
    video: int
    file: str | ShardMember
    start: float | None
    end: float | None
    num_frames: int
    framing: Framing
    sampling: str
    seed: int
    keep: bool
    keep_clip: bool


@dataclass(frozen=True)
class Seen:
    """How long the video, or the part of it, is; a still image has one frame and no seconds.

    `thumbnails` are up to SHOWN of the sampled frames in their order, uint8 (frames, THUMBNAIL, THUMBNAIL, 3), and
    `clip` is all of them, uint8 (T, size, size, 3).
    """

    frames: int
    seconds: float | None
    thumbnails: NDArray[np.uint8] | None
    clip: NDArray[np.uint8] | None = None


def look(job: Look, beat: Beat) -> Seen:
    """Read a video as evaluation reads it, without augmentation. ValueError with the reason if it cannot be."""
    lengths: list[int] = []
    framing, new_rng = job.framing, partial(sampling.generator, "frames", job.seed, 0, job.video)
    square = None if framing.interpolation == "ffmpeg" else partial(framing.square, rng=np.random.default_rng(0))

    try:
        if decode.is_still(job.file):
            image = decode.read_image(job.file)
            clip = (transforms.resize_image(image, framing.size) if square is None else square(image))[None]
            return Seen(1, None, _thumbnails(clip) if job.keep else None)
        choose = _watched(sampling.chooser(job.sampling, job.num_frames, new_rng), lengths)
        clip = decode.read_video(job.file, framing.size, choose, job.start, job.end, square)
    except decode.DecodeError as error:
        raise ValueError(error.reason) from None
    frames = clip.permute(0, 2, 3, 1).numpy() if job.keep_clip else None
    return Seen(lengths[-1], _seconds(job), _thumbnails(clip) if job.keep else None, frames)


def _watched(choose: decode.ChooseFrames, lengths: list[int]) -> decode.ChooseFrames:
    """The same choice, which adds to `lengths` how many frames there were to choose from."""

    def by_time(times: NDArray) -> NDArray:
        assert isinstance(choose, sampling.ByTime)
        lengths.append(len(times))
        return choose.choose(times)

    def by_number(length: int) -> NDArray:
        assert not isinstance(choose, sampling.ByTime)
        lengths.append(length)
        return choose(length)

    return sampling.ByTime(by_time) if isinstance(choose, sampling.ByTime) else by_number


def _seconds(job: Look) -> float | None:
    """What the file says; None where it says nothing, or nothing that can be."""
    length = decode.seconds(job.file)
    if length is None:
        return None
    return max(min(job.end or length, length) - (job.start or 0.0), 0.0)


def _thumbnails(clip: torch.Tensor) -> NDArray[np.uint8]:
    shown = np.linspace(0, len(clip) - 1, min(SHOWN, len(clip))).round().astype(int)
    small = [transforms.resize_image(clip[frame], THUMBNAIL) for frame in shown]
    return torch.stack(small).permute(0, 2, 3, 1).numpy()
