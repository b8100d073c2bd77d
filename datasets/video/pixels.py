"""Decoded frames as small RGB pictures, upright, of standard dynamic range."""

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter


class Shrinker:
    """Squashes frames to a square of `size` pixels. One for all frames of a video, as each new one computes tables."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._reformatter = VideoReformatter()

    def shrink(self, frame: VideoFrame) -> np.ndarray:
        """(size, size, 3) uint8, resized bilinearly."""
        small = self._reformatter.reformat(frame, self._size, self._size, "rgb24", interpolation="BILINEAR", threads=1)
        # Turned after resizing, which is the same as both sides are equal.
        return np.rot90(small.to_ndarray(), frame.rotation // 90)
