"""Boxes from a video's own pixels into those of the frames that a model sees."""

from collections.abc import Sequence
from typing import Literal

from datasets.objects.detections import Detection

Fit = Literal["squash", "crop"]
LEAST_SIDE = 1.0
"""Of what is left of a box in the crop, in pixels; less shows no object."""


def into_frame(detections: Sequence[Detection], width: int, height: int, size: int, fit: Fit) -> list[Detection]:
    """The boxes of a frame of `width` x `height` pixels on its square of `size` pixels.

    `squash` scales both sides to `size`. `crop` scales the shorter side to it and cuts out the middle, as
    torchvision's Resize and CenterCrop do; of a box the part inside is kept, and boxes outside it are left out.
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
    """Width and height after resizing, and where in it the square begins, from the left and from the top."""
    if fit == "squash":
        return size, size, 0, 0
    if width <= height:
        resized_width, resized_height = size, size * height // width
    else:
        resized_width, resized_height = size * width // height, size
    return resized_width, resized_height, round((resized_width - size) / 2), round((resized_height - size) / 2)
