"""Random crops and operations of pre-training, on uint8 pixels (..., 3, H, W); one draw serves all frames of a clip.

Operations and strengths are the reference's (RandAugment on a scale of 10: clips 2 of level 5, images 2 of level 7).
"""

import math

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

CLIP_OPERATIONS = (
    "identity",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "flip",
)
IMAGE_OPERATIONS = (
    "identity",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
)
CLIP_LEVEL = 5
IMAGE_LEVEL = 7
FILL = 128.0

COLOUR_OPERATIONS = {
    "contrast": functional.adjust_contrast,
    "brightness": functional.adjust_brightness,
    "sharpness": functional.adjust_sharpness,
}


def resize_image(image: Tensor, size: int) -> Tensor:
    """Squash an image to a square, as videos are when they are read."""
    return functional.resize(image, [size, size], InterpolationMode.BICUBIC)


def augment_clip(clip: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Cut a random square of `size` pixels out of all frames, then apply two distinct operations to all of them."""
    top = int(rng.integers(clip.shape[-2] - size + 1))
    left = int(rng.integers(clip.shape[-1] - size + 1))
    clip = functional.crop(clip, top, left, size, size)
    for name in rng.choice(CLIP_OPERATIONS, 2, replace=False):
        clip = apply_operation(clip, str(name), CLIP_LEVEL, sign=1)
    return clip


def augment_image(image: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Cut and resize a random part of at least half the area, flip half of the time, then up to two operations.

    An operation may be drawn twice, is skipped half of the time, and goes in either direction.
    """
    box = random_box(image.shape[-2], image.shape[-1], rng)
    image = functional.resized_crop(image, *box, [size, size], InterpolationMode.BICUBIC)
    if rng.random() < 0.5:
        image = functional.horizontal_flip(image)
    for name in rng.choice(IMAGE_OPERATIONS, 2):
        sign = 1 if rng.random() < 0.5 else -1
        if rng.random() < 0.5:
            image = apply_operation(image, str(name), IMAGE_LEVEL, sign)
    return image


def random_box(height: int, width: int, rng: np.random.Generator, smallest: float = 0.5) -> tuple[int, int, int, int]:
    """Top, left, height and width of a part: `smallest` to all of the area, 3/4 to 4/3 as wide as high.

    Like RandomResizedCrop, which takes its numbers from torch's global generator. A picture so long that ten draws do
    not fit is taken whole.
    """
    for _ in range(10):
        area = height * width * rng.uniform(smallest, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        box_height, box_width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < box_height <= height and 0 < box_width <= width:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return top, left, box_height, box_width
    return 0, 0, height, width


def apply_operation(pixels: Tensor, name: str, level: float, sign: int) -> Tensor:
    """One operation at a level of 0 to 10; `sign` is 1 or -1 and turns geometric ones round.

    At level 5 contrast, brightness and sharpness have the factor 1.0 and change nothing, which is the reference's too.
    """
    share = level / 10
    match name:
        case "identity":
            return pixels
        case "flip":
            return functional.horizontal_flip(pixels)
        case "contrast" | "brightness" | "sharpness":
            factor = 0.1 + 1.8 * share
            return pixels if factor == 1.0 else COLOUR_OPERATIONS[name](pixels, factor)
        case "rotate":
            return functional.rotate(pixels, sign * 30 * share, InterpolationMode.BILINEAR, fill=[FILL])
        # The reference's matrices give where a pixel goes: shears to the right and down, shifts to the left and up.
        case "shear_x":
            return _shear(pixels, x=sign * 0.3 * share)
        case "shear_y":
            return _shear(pixels, y=sign * 0.3 * share)
        case "translate_x":
            return _shift(pixels, x=-sign * round(10 * share))
        case "translate_y":
            return _shift(pixels, y=-sign * round(10 * share))
    raise ValueError(f"no operation {name!r}")


def _shift(pixels: Tensor, x: int = 0, y: int = 0) -> Tensor:
    """Move pixels by whole numbers, to the right and down, without interpolation."""
    return torch.nn.functional.pad(pixels, (x, -x, y, -y), value=FILL)


def _shear(pixels: Tensor, x: float = 0.0, y: float = 0.0) -> Tensor:
    """Move pixel (column, row) to (column + x row, row + y column), bilinearly."""
    # torchvision's shears are angles, go the other way, and count from a corner, not from the first pixel's middle.
    degrees = [-math.degrees(math.atan(x)), -math.degrees(math.atan(y))]
    return functional.affine(
        pixels, 0.0, [0, 0], 1.0, degrees, InterpolationMode.BILINEAR, fill=[FILL], center=[0.5, 0.5]
    )
