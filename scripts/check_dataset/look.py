"""One video, read as a run would read it; this is what the worker processes do."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from datasets import decode, sampling, transforms
from datasets.records import ShardMember
from scripts.parts.worker_pool import Beat

THUMBNAIL = 112
SHOWN = 8


@dataclass(frozen=True)
class Look:
    """One video of a part to read; `keep` asks for small pictures of it."""

    part: str
    video: int
    file: str | ShardMember
    start: float | None
    end: float | None
    num_frames: int
    image_size: int
    sampling: str
    seed: int
    keep: bool


@dataclass(frozen=True)
class Seen:
    """How long the video, or the part of it, is; a still image has one frame and no seconds.

    `thumbnails` are up to SHOWN of the sampled frames in their order, uint8 (frames, THUMBNAIL, THUMBNAIL, 3).
    """

    frames: int
    seconds: float | None
    thumbnails: NDArray[np.uint8] | None


def look(job: Look, beat: Beat) -> Seen:
    """Read a video. ValueError with the reason if it cannot be."""
    lengths: list[int] = []

    def choose(length: int) -> NDArray:
        lengths.append(length)
        rng = sampling.generator("frames", job.seed, 0, job.video)
        return sampling.SAMPLERS[job.sampling](job.num_frames, length, rng)

    try:
        if decode.is_still(job.file):
            clip = transforms.resize_image(decode.read_image(job.file), job.image_size)[None]
            return Seen(1, None, _thumbnails(clip) if job.keep else None)
        clip = decode.read_video(job.file, job.image_size, choose, job.start, job.end)
    except decode.DecodeError as error:
        raise ValueError(error.reason) from None
    return Seen(lengths[-1], _seconds(job), _thumbnails(clip) if job.keep else None)


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
