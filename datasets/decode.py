"""Frames out of video files, and images: the one door through which the project reads them.

The frames of a video are those that FFmpeg returns when its best video stream is decoded from the beginning with
default options, in that order. `datasets.video` finds any of them without decoding all the others, or says why it
cannot. Files are opened where they are used and closed before the call ends, so nothing is shared with a forked worker
and nothing piles up. A file may be a part of a tar file: FFmpeg's `subfile` protocol shows that part as a file of its
own, and nothing is copied.
"""

import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import av
import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from datasets.records import ShardMember
from datasets.video.files import DecodeError, Source, one_line, opened_by_pillow, source_of
from datasets.video.frame_list import FrameList, by_decoding, from_packets
from datasets.video.pixels import Shrinker
from datasets.video.reading import ListCache, NotAsListed, frames_at, opened

__all__ = ["ChooseFrames", "DecodeError", "Reading", "read_image", "read_times", "read_video", "seconds"]

logger = logging.getLogger(__name__)

ChooseFrames = Callable[[int], np.ndarray]
"""From a number of frames to the sorted indices of those wanted, repeats allowed; the same whenever it is asked."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by the orientation in its EXIF tags."""


FRAME_LISTS = ListCache()


class Reading(NamedTuple):
    """Frames of a video and how they were read.

    `frames` (T, size, size, 3) uint8 are those of the `indices` (T,), shown at `times` (T,) in seconds from the first
    frame of the video; `length` frames were to choose from. `reader` and `reason` say in words which way was taken.
    """

    frames: np.ndarray
    indices: np.ndarray
    times: np.ndarray
    reader: str
    reason: str


def read_image(file: str | ShardMember) -> Tensor:
    """Read an image, turned upright: uint8 (3, H, W), a view of (H, W, 3). DecodeError if it cannot be read."""
    path = str(file)
    try:
        with Image.open(opened_by_pillow(file)) as image:
            image.load()
            # Not by ImageOps: that writes all tags anew, and fails where one of them is odd. Turned and converted only
            # if need be, as each copies the picture even where it changes nothing.
            turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            turned = image if turn is None else image.transpose(turn)
            pixels = np.array(turned if turned.mode == "RGB" else turned.convert("RGB"))
    # Pillow says SyntaxError of a broken PNG, and the others but the first two of broken tags.
    except (
        OSError,
        ValueError,
        SyntaxError,
        LookupError,
        TypeError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise DecodeError(path, f"Pillow: {one_line(error)}") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_video(
    file: str | ShardMember, size: int, choose: ChooseFrames, start: float | None = None, end: float | None = None
) -> Tensor:
    """Read chosen frames of a video, squashed to a square: uint8 (T, 3, size, size), a view of (T, size, size, 3).

    The pixels lie as the decoder wrote them; whoever needs them in another order copies them once, to where they go.
    `choose` gets the number of frames between `start` and `end` (seconds from the first frame; by default all) and
    says which to take. DecodeError if the file cannot be read, or is over at `start`.
    """
    return torch.from_numpy(read(file, size, choose, start, end).frames).permute(0, 3, 1, 2)


def read(
    file: str | ShardMember, size: int, choose: ChooseFrames, start: float | None = None, end: float | None = None
) -> Reading:
    """Read as `read_video` does, and tell which frames were read and how."""
    with _errors_of(file):
        return _read(source_of(file), size, choose, start, end)


def read_times(
    file: str | ShardMember, choose: ChooseFrames, start: float | None = None, end: float | None = None
) -> np.ndarray:
    """When the frames that `read_video` reads are shown, (T,) in seconds from the video's first frame.

    DecodeError if the file cannot be read, or is over at `start`.
    """
    with _errors_of(file):
        frames = frame_list(source_of(file))
        first, stop = frames.part(start, end)
    return frames.times[first + choose(stop - first)]


def seconds(file: str | ShardMember) -> float | None:
    """How long a video says it is; None where it says nothing, or nothing that can be. Errors as PyAV raises them."""
    with av.open(source_of(file).address, metadata_errors="ignore") as container:
        if container.duration is None or container.duration <= 0:
            return None
        return container.duration / av.time_base


def frame_list(source: Source) -> FrameList:
    """The frames of a video, from memory if it was listed before. Errors as PyAV raises them, and ValueError."""
    found = FRAME_LISTS.get(source)
    if found is None:
        with opened(source) as (container, stream):
            listed = from_packets(container, stream)
        found = _list_by_decoding(source, listed) if isinstance(listed, str) else listed
        FRAME_LISTS.put(source, found)
    return found


@contextmanager
def _errors_of(file: str | ShardMember) -> Iterator[None]:
    """Turn what PyAV and our own reader raise into a DecodeError."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise DecodeError(str(file), f"PyAV: {one_line(error)}") from None
    except ValueError as error:
        raise DecodeError(str(file), one_line(error)) from None


def _read(source: Source, size: int, choose: ChooseFrames, start: float | None, end: float | None) -> Reading:
    frames = frame_list(source)
    while True:
        first, stop = frames.part(start, end)
        indices = first + choose(stop - first)
        try:
            pixels = _pixels(source, size, frames, indices)
        except NotAsListed as error:
            # Each round trusts less of what the file says: packets, then time stamps, then nothing but the decoder.
            if not frames.decoded:
                frames = _list_by_decoding(source, str(error))
            elif frames.stamps is not None:
                frames = frames.counted(str(error))
            else:
                raise ValueError(str(error)) from None
            FRAME_LISTS.put(source, frames)
            continue
        way = "in order" if frames.stamps is None else "by seeking"
        return Reading(pixels, indices, frames.times[indices], f"PyAV, {way}", frames.reason)


def _pixels(source: Source, size: int, frames: FrameList, indices: np.ndarray) -> np.ndarray:
    """(T, size, size, 3) uint8; a frame is decoded and resized once, however often it is wanted."""
    wanted, places = np.unique(indices, return_inverse=True)
    pixels = np.empty((len(indices), size, size, 3), np.uint8)
    shrinker = Shrinker(size)
    with opened(source) as (container, stream):
        for number, frame in enumerate(frames_at(container, stream, frames, wanted)):
            pixels[places == number] = shrinker.shrink(frame)
    return pixels


def _list_by_decoding(source: Source, doubt: str) -> FrameList:
    with opened(source) as (container, stream):
        return by_decoding(container, stream, doubt)
