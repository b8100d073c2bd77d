"""Animated WebP, which FFmpeg does not read: decoded by Pillow, in order."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from datasets.images import PILLOW_ERRORS
from datasets.video.files import DecodeError, LocalFile, one_line, opened_by_pillow
from datasets.video.frame_list import FrameList

SHORTEST_MS = 10
"""The least duration of a frame: without one, a frame and the next would have the same time."""


def list_animation(file: LocalFile) -> FrameList:
    """The frames of an animated image. DecodeError if they cannot be read."""
    try:
        with Image.open(opened_by_pillow(file)) as image:
            durations = []
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                image.load()
                durations.append(max(image.info.get("duration", 0), SHORTEST_MS) / 1000)
    except PILLOW_ERRORS as error:
        raise DecodeError(str(file), f"Pillow: {one_line(error)}") from None

    ends = np.cumsum(durations)
    reason = "FFmpeg does not read animated WebP"
    return FrameList(ends - durations, float(ends[-1]), decoded=True, reason=reason)


def read_animation(
    file: LocalFile,
    size: int,
    indices: np.ndarray,
    square: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """The frames of sorted indices as squares, (T, size, size, 3) uint8, squashed by default. DecodeError as above."""
    pixels = np.empty((len(indices), size, size, 3), np.uint8)
    try:
        with Image.open(opened_by_pillow(file)) as image:
            for index in np.unique(indices).tolist():
                image.seek(index)
                picture = image.convert("RGB")
                if square is None:
                    pixels[indices == index] = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
                else:
                    pixels[indices == index] = square(np.asarray(picture))
    except PILLOW_ERRORS as error:
        raise DecodeError(str(file), f"Pillow: {one_line(error)}") from None
    return pixels


def animation_still(file: LocalFile, second: float) -> Image.Image:
    """The frame on screen at this second, or the last one if the animation is over. DecodeError as above."""
    frames = list_animation(file)
    first, _ = frames.part(min(second, float(frames.times[-1])), None)
    try:
        with Image.open(opened_by_pillow(file)) as image:
            image.seek(first)
            return image.convert("RGB")
    except PILLOW_ERRORS as error:
        raise DecodeError(str(file), f"Pillow: {one_line(error)}") from None
