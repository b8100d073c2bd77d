"""Files as the clips that models get, before anything random happens to whole clips: pixels and times of the frames."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets import decode, transforms
from datasets.framing import Framing
from datasets.records import ShardMember

NewGenerator = Callable[[], np.random.Generator]
"""A new generator, which draws the same each time: frames come one after the other, and share what is drawn."""


class Frames(NamedTuple):
    """Pixels uint8 (T, 3, size, size) and times (T,) in seconds from the video's first frame."""

    pixels: Tensor
    times: Tensor


class ClipReader:
    """Reads videos and images as squares, as `framing` says it; an image is shown `num_frames` times."""

    def __init__(self, framing: Framing, num_frames: int) -> None:
        self.framing, self.num_frames = framing, num_frames

    def parts(
        self,
        file: str | ShardMember,
        parts: Sequence[decode.Part],
        new_rng: NewGenerator,
        beat: decode.Beat | None = None,
    ) -> list[Frames]:
        """Parts of a video, read in one pass. `decode.DecodeError` if one of them cannot be read."""
        read = decode.read_parts(file, self.framing.read_size, parts, self._square(new_rng), beat)
        return [
            Frames(torch.from_numpy(part.frames).permute(0, 3, 1, 2), torch.from_numpy(part.times)) for part in read
        ]

    def image(self, file: str | ShardMember, new_rng: NewGenerator) -> Frames:
        """An image as a clip. `decode.DecodeError` if it cannot be read."""
        image, square = decode.read_image(file), self._square(new_rng)
        return self.still(transforms.resize_image(image, self.framing.read_size) if square is None else square(image))

    def still(self, image: Tensor) -> Frames:
        """An image (3, H, W) as a clip in which nothing moves."""
        times = torch.zeros(self.num_frames, dtype=torch.float64)
        return Frames(image.expand(self.num_frames, -1, -1, -1), times)

    def _square(self, new_rng: NewGenerator) -> decode.Square | None:
        """FFmpeg resizes while it decodes; any other interpolation needs whole frames, and makes squares of them."""
        if self.framing.interpolation == "ffmpeg":
            return None
        return partial(_squared, self.framing, new_rng)


def _squared(framing: Framing, new_rng: NewGenerator, frame: Tensor) -> Tensor:
    """A frame as a square; what is drawn for it is the same for all frames of a clip."""
    return framing.square(frame, new_rng())
