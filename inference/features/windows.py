"""Windows over long videos: one embedding for each, beside one for the whole, so that a moment can be found."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import av

from datasets.decode import DecodeError, seconds
from datasets.records import is_image
from inference.features.sources import Clip

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Windows:
    """Windows of `length` seconds, each `stride` seconds after the one before.

    Together they cover a video: the last one ends with it, and may be shorter.
    """

    length: float
    stride: float

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.length:
            raise ValueError(
                f"--stride: {self.stride:g} s must be above 0 and at most the window, {self.length:g} s, or parts of a "
                "video would be in no window"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """As extraction.json records it."""
        return {"length": self.length, "stride": self.stride}

    def spans(self, start: float, end: float) -> Iterator[tuple[float, float]]:
        """Start and end of each window over a part of a video, in seconds; none if a single one would be all of it."""
        number = 1 + math.ceil(max(0.0, end - start - self.length) / self.stride)
        if number == 1:
            return
        for index in range(number):
            first = start + index * self.stride
            yield first, min(first + self.length, end)


def with_windows(clips: Sequence[Clip], windows: Windows) -> list[Clip]:
    """Each clip followed by its windows; one that fits into a window, and an image, stays alone.

    A video that does not say how long it is stays alone too, with a warning. What cannot be opened is named when it is
    encoded.
    """
    found: list[Clip] = []
    for clip in clips:
        found.append(clip)
        end = clip.end if clip.end is not None else _length(clip)
        if end is None:
            continue

        spans = list(windows.spans(clip.start or 0.0, end))
        found += [
            replace(clip, start=first, end=last)
            for first, last in zip([first for first, _ in spans], ends_read(spans, clip.end), strict=True)
        ]
    return found


def ends_read(spans: Sequence[tuple[float, float]], end: float | None) -> list[float | None]:
    """Until when each window is read: the last one until `end`, for a file may be a little longer than it says."""
    return [last for _, last in spans[:-1]] + [end] * bool(spans)


def _length(clip: Clip) -> float | None:
    """How long a file says it is, in seconds; None for an image, and where it says nothing or cannot be opened."""
    if clip.size is None or is_image(clip.video):
        return None
    try:
        length = seconds(clip.file)
    except (av.FFmpegError, DecodeError, OSError, ValueError):
        return None
    if length is None:
        logger.warning("%s: does not say how long it is, so it is encoded as a whole only", clip.video)
    return length
