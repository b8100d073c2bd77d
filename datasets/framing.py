"""How the frames of a clip become pictures of one size, on uint8 pixels (..., 3, H, W): resize, then cut."""

import numpy as np
import torch
from PIL.Image import Resampling, fromarray
from torch import Tensor

INTERPOLATIONS = {"bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}


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
    """Resize to (height, width): `nearest`, or `bilinear` or `bicubic` with antialiasing, to the bit as PIL does."""
    if interpolation == "nearest":
        rows, columns = (_nearest(before, after) for before, after in zip(pixels.shape[-2:], size, strict=True))
        return pixels.index_select(-2, rows).index_select(-1, columns)
    height, width = size
    frames = pixels.movedim(-3, -1).reshape(-1, *pixels.shape[-2:], 3).contiguous().numpy()
    resized = [np.asarray(fromarray(frame).resize((width, height), INTERPOLATIONS[interpolation])) for frame in frames]
    return torch.from_numpy(np.stack(resized)).movedim(-1, -3).reshape(*pixels.shape[:-2], height, width)


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
