"""How the frames of a clip become square pictures of one size, on uint8 pixels (..., 3, H, W)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Resampling, fromarray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional

from datasets.transforms import random_box

PIL_INTERPOLATIONS = {"bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}
SMALLEST_PART = 0.35
JITTER = 0.3
MIDDLE = 127.5
"""Of `augment: strong`: the smallest share of the area, how far brightness and contrast go from 1, and middle grey."""


@dataclass(frozen=True)
class Framing:
    """The rule by which frames become squares of `size` pixels, as `video` of a configuration says it.

    Attributes:
        fit: `squash` changes the aspect; `crop` cuts the middle out of frames whose shorter side has `resize` pixels.
        interpolation: of RESIZES; `ffmpeg` squashes while decoding, bilinearly, and images bicubically.
        augment: `none`; what training draws once a clip instead of the fit, see CUTS; or `operations`, pre-training's,
            which squashes to `resize` pixels first (`transforms.augment_clip`).
    """

    size: int
    fit: str = "squash"
    interpolation: str = "ffmpeg"
    resize: int = 256
    augment: str = "none"

    @property
    def read_size(self) -> int:
        """The side of the squares that are read, before operations cut them."""
        return self.resize if self.augment == "operations" else self.size

    @property
    def is_random(self) -> bool:
        """Whether what is read differs from epoch to epoch."""
        return self.augment in CUTS

    def square(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """Frames (..., 3, H, W) as squares of `read_size` pixels; one draw serves all of them."""
        cut = CUTS[self.augment] if self.augment in CUTS else FITS[self.fit]
        return cut(pixels, self, rng)


def squash(pixels: Tensor, framing: Framing, rng: np.random.Generator) -> Tensor:
    """Squash frames to a square, whatever their aspect."""
    return resize(pixels, (framing.read_size, framing.read_size), framing.interpolation)


def crop_middle(pixels: Tensor, framing: Framing, rng: np.random.Generator) -> Tensor:
    """Resize the shorter side, then cut out the middle."""
    return crop_centre(resize_shorter_side(pixels, framing.resize, framing.interpolation), framing.size)


def crop_anywhere(pixels: Tensor, framing: Framing, rng: np.random.Generator) -> Tensor:
    """Resize the shorter side, then cut a square out of a random place (TVTSv2)."""
    return crop_random(resize_shorter_side(pixels, framing.resize, framing.interpolation), framing.size, rng)


def crop_and_resize(pixels: Tensor, framing: Framing, rng: np.random.Generator) -> Tensor:
    """Cut out a random part of at least half the area, squash it to a square, and mirror it half of the time (UMT)."""
    top, left, height, width = random_box(pixels.shape[-2], pixels.shape[-1], rng)
    part = pixels[..., top : top + height, left : left + width]
    square = resize(part, (framing.size, framing.size), framing.interpolation)
    return functional.horizontal_flip(square) if rng.random() < 0.5 else square


def crop_and_jitter(pixels: Tensor, framing: Framing, rng: np.random.Generator) -> Tensor:
    """The same with a part of at least SMALLEST_PART of the area, whose brightness and contrast change too."""
    top, left, height, width = random_box(pixels.shape[-2], pixels.shape[-1], rng, SMALLEST_PART)
    part = pixels[..., top : top + height, left : left + width]
    square = resize(part, (framing.size, framing.size), framing.interpolation)
    square = functional.horizontal_flip(square) if rng.random() < 0.5 else square

    # Contrast is around the middle of the scale: frames come one by one, and all of them must change alike.
    brightness, contrast = rng.uniform(1 - JITTER, 1 + JITTER, 2)
    values = (square.float() * brightness - MIDDLE) * contrast + MIDDLE
    return values.round().clamp(0, 255).to(torch.uint8)


Cut = Callable[[Tensor, Framing, np.random.Generator], Tensor]
FITS: dict[str, Cut] = {"squash": squash, "crop": crop_middle}
"""`video.fit` by name."""
CUTS: dict[str, Cut] = {"crop": crop_anywhere, "resized_crop": crop_and_resize, "strong": crop_and_jitter}
"""Those of `video.augment` that take another part of the frame for each clip and epoch."""


def resize_shorter_side(pixels: Tensor, size: int, interpolation: str = "bicubic") -> Tensor:
    """Resize so that the shorter side has `size` pixels; the other keeps the aspect and is rounded down.

    Frames whose shorter side is so long already are left alone.
    """
    height, width = pixels.shape[-2:]
    shorter = min(height, width)
    if shorter == size:
        return pixels
    return resize(pixels, (size * height // shorter, size * width // shorter), interpolation)


def resize(pixels: Tensor, size: tuple[int, int], interpolation: str = "bicubic") -> Tensor:
    """Resize to (height, width) by the rule of RESIZES that `interpolation` names."""
    return RESIZES[interpolation](pixels, size, interpolation)


def resize_as_pil(pixels: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """With antialiasing, to the bit as PIL does."""
    height, width = size
    frames = pixels.movedim(-3, -1).reshape(-1, *pixels.shape[-2:], 3).contiguous().numpy()
    resampling = PIL_INTERPOLATIONS[interpolation]
    resized = [np.asarray(fromarray(frame).resize((width, height), resampling)) for frame in frames]
    return torch.from_numpy(np.stack(resized)).movedim(-1, -3).reshape(*pixels.shape[:-2], height, width)


def resize_aliased(pixels: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Bicubic without antialiasing, as torchvision resized tensors until 0.16 (UMT)."""
    frames = pixels.reshape(-1, *pixels.shape[-3:]).float()
    resized = F.interpolate(frames, size=size, mode="bicubic", align_corners=False, antialias=False)
    return resized.clamp(0, 255).round().to(torch.uint8).reshape(*pixels.shape[:-2], *size)


def resize_nearest(pixels: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """By the pixel that holds the middle of the new one, as PIL does."""
    rows, columns = (_nearest(before, after) for before, after in zip(pixels.shape[-2:], size, strict=True))
    return pixels.index_select(-2, rows).index_select(-1, columns)


RESIZES: dict[str, Callable[[Tensor, tuple[int, int], str], Tensor]] = {
    "nearest": resize_nearest,
    "bilinear": resize_as_pil,
    "bicubic": resize_as_pil,
    "bicubic_aliased": resize_aliased,
}
"""`video.interpolation` by name, besides `ffmpeg`."""


def crop_centre(pixels: Tensor, size: int) -> Tensor:
    """Cut the middle square of `size` pixels; half a pixel is rounded to an even one, as the field's tools do."""
    check_room(pixels, size)
    top, left = (round((side - size) / 2) for side in pixels.shape[-2:])
    return pixels[..., top : top + size, left : left + size]


def crop_random(pixels: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Cut one random square of `size` pixels out of all frames."""
    check_room(pixels, size)
    top, left = (int(rng.integers(side - size + 1)) for side in pixels.shape[-2:])
    return pixels[..., top : top + size, left : left + size]


def check_room(pixels: Tensor, size: int) -> None:
    """ValueError if a square of `size` pixels does not fit."""
    height, width = pixels.shape[-2:]
    if min(height, width) < size:
        raise ValueError(f"frames of {height} x {width} pixels hold no square of {size}; resize them to more first")


def _nearest(before: int, after: int) -> Tensor:
    """The pixel taken for each of `after` places along a side of `before`: the one that holds the place's middle.

    Positions are added up one by one, as PIL does; multiplied, some that lie on the edge of two pixels would differ.
    """
    step = before / after
    steps = np.full(after, step)
    steps[0] = step * 0.5
    positions = np.add.accumulate(steps).astype(np.int64)
    return torch.from_numpy(positions.clip(max=before - 1))
