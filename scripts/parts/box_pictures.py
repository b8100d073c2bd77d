"""Pictures of boxes and trajectories on the frames of a clip, to look at before anything is trained on them."""

import colorsys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from datasets.objects.detections import ClipBoxes

COLUMNS = 4
GOLDEN_ANGLE = 0.618
LEAST_FONT, LINES = 10, 16
"""The size of labels: so many lines fill a frame, unless they became too small."""


def draw_clip(frames_THWC: NDArray, clip: ClipBoxes, classes: Mapping[str, int], least_height: int = 1) -> Image.Image:
    """A sheet of the frames (T, H, W, 3, uint8) with their boxes; thick ones belong to a trajectory.

    In the last cell a line for each trajectory joins the middles of its boxes from frame to frame. Frames lower than
    `least_height` pixels are enlarged a whole number of times.
    """
    times = -(-least_height // frames_THWC.shape[1])
    frames_THWC = frames_THWC.repeat(times, axis=1).repeat(times, axis=2)
    clip = clip._replace(boxes=clip.boxes * times)
    num_frames, height, width = frames_THWC.shape[:3]
    names = {number: name for name, number in classes.items()}
    num_cells = num_frames + 1
    font = ImageFont.load_default(max(LEAST_FONT, height / LINES))
    sheet = Image.new("RGB", (COLUMNS * width, -(-num_cells // COLUMNS) * height))

    for frame in range(num_frames):
        cell = Image.fromarray(frames_THWC[frame])
        draw = ImageDraw.Draw(cell)
        for box, label in zip(clip.boxes[frame], clip.classes[frame].tolist(), strict=True):
            if label:
                is_followed = label in clip.trajectory_ids
                draw.rectangle(box.tolist(), outline=colour(label), width=2 if is_followed else 1)
                place, name = (box[0] + 2, box[1] + 1), names.get(label, str(label))
                draw.rectangle(draw.textbbox(place, name, font=font), fill="black")
                draw.text(place, name, fill=colour(label), font=font)
        sheet.paste(cell, _place(frame, width, height))

    cell = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(cell)
    for label in clip.trajectory_ids[clip.trajectory_ids > 0].tolist():
        boxes = clip.boxes[clip.classes == label]
        middles = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in boxes.tolist()]
        draw.line(middles, fill=colour(label), width=2)
        for x, y in middles:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour(label))
    sheet.paste(cell, _place(num_frames, width, height))
    return sheet


def colour(label: int) -> tuple[int, int, int]:
    """A bright colour of a class; numbers that follow each other are far apart."""
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN_ANGLE % 1, 0.9, 1)
    return round(255 * red), round(255 * green), round(255 * blue)


def save_clip(path: Path, frames_THWC: NDArray, clip: ClipBoxes, classes: Mapping[str, int]) -> None:
    """Draw a clip into a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_clip(np.ascontiguousarray(frames_THWC), clip, classes).save(path)


def _place(number: int, width: int, height: int) -> tuple[int, int]:
    return number % COLUMNS * width, number // COLUMNS * height
