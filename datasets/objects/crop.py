"""Maps boxes from the pixels of a video to the pixels of the frames that a model sees."""

from collections.abc import Sequence
from typing import Literal

from datasets.objects.detections import Detection

Fit = Literal["squash", "crop"]
LEAST_SIDE = 1.0
"""In pixels: a box that is narrower or lower in the crop shows no object, and is dropped."""


def into_frame(detections: Sequence[Detection], width: int, height: int, size: int, fit: Fit) -> list[Detection]:
    """Map the boxes of a frame of `width` x `height` pixels to its square of `size` pixels.

    `squash` scales both sides to `size`. `crop` scales the shorter side to `size` and cuts out the middle, like
    torchvision's Resize and CenterCrop; boxes are clipped to the crop, and boxes outside it are dropped.
    """
    resized_width, resized_height, left, top = placement(width, height, size, fit)
    x_scale, y_scale = resized_width / width, resized_height / height
    kept: list[Detection] = []
    for label, (x1, y1, x2, y2), confidence in detections:
        inside_x = [min(max(x * x_scale - left, 0.0), float(size)) for x in (x1, x2)]
        inside_y = [min(max(y * y_scale - top, 0.0), float(size)) for y in (y1, y2)]
        if inside_x[1] - inside_x[0] >= LEAST_SIDE and inside_y[1] - inside_y[0] >= LEAST_SIDE:
            kept.append(Detection(label, (inside_x[0], inside_y[0], inside_x[1], inside_y[1]), confidence))
    return kept


def placement(width: int, height: int, size: int, fit: Fit) -> tuple[int, int, int, int]:
    """Width and height after resizing, and the left and top of the square in it."""
    if fit == "squash":
        return size, size, 0, 0
    if width <= height:
        resized_width, resized_height = size, size * height // width
    else:
        resized_width, resized_height = size * width // height, size
    return resized_width, resized_height, round((resized_width - size) / 2), round((resized_height - size) / 2)
