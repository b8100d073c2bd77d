"""A record of frames as a video file."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.encode import write_video
from datasets.tfrecords import byte_strings, read_record
from scripts.parts.worker_pool import Beat

FEATURE = "image"
JPEG_BEGINS = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Job:
    """A clip: where its record is, and the file to write."""

    name: str
    shard: Path
    offset: int
    target: Path
    side: int
    fps: int


def convert(job: Job, beat: Beat) -> int:
    """Write the clip as a video; how many frames it has. ValueError names the shard and the offset."""
    try:
        strings = byte_strings(read_record(job.shard, job.offset), FEATURE)
        frames = np.concatenate([frames_of(string, job.side) for string in strings])
    except ValueError as error:
        place = f"{job.shard}: byte {job.offset}"
        raise ValueError(str(error) if str(error).startswith(str(job.shard)) else f"{place}: {error}") from None
    beat()

    # The file gets its name once it is whole.
    job.target.parent.mkdir(parents=True, exist_ok=True)
    unnamed = job.target.with_name(f".{job.target.name}")
    write_video(unnamed, frames, job.fps)
    unnamed.replace(job.target)
    return len(frames)


def frames_of(string: bytes, side: int) -> NDArray[np.uint8]:
    """RGB frames (T, H, W, 3) of raw BGR frames of `side` pixels, or of one JPEG."""
    if string.startswith(JPEG_BEGINS):
        with Image.open(io.BytesIO(string)) as image:
            return np.asarray(image.convert("RGB"))[None]
    size = side * side * 3
    if not string or len(string) % size:
        raise ValueError(
            f"{len(string)} bytes are no whole frames of {side} x {side} pixels; the writer keeps the videos' own "
            "size, and does not say which: give --side if yours are square"
        )
    return np.frombuffer(string, np.uint8).reshape(-1, side, side, 3)[..., ::-1]
