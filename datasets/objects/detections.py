"""The detections on the frames of a clip, and which of them a model gets: boxes, classes, and trajectories.

The rules are the ones with which STOA-VLP's published weights were trained. Shapes: T frames, O boxes a frame.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NO_BOX = -1.0
"""The coordinates of padding."""
MOST_OVERLAP = 0.5
"""A box is dropped if its intersection over union with a kept box, of another class, is this or more."""


class Detection(NamedTuple):
    """One box: its class by number from 1, x1 y1 x2 y2, and the detector's confidence."""

    label: int
    box: tuple[float, float, float, float]
    confidence: float


class ClipBoxes(NamedTuple):
    """The boxes of a clip.

    Attributes:
        boxes: (T, O, 4) float32, in the pixels of the frames that the model sees; padding is -1.
        classes: (T, O) int64, 0 for padding.
        trajectory_ids: (2 O,) int64, the classes that get a trajectory, 0 for padding.
    """

    boxes: NDArray
    classes: NDArray
    trajectory_ids: NDArray


def choose_boxes(frames: Sequence[Sequence[Detection]], per_frame: int) -> ClipBoxes:
    """Choose up to `per_frame` boxes of each frame with `largest_of_surest`, and the trajectories of the clip."""
    boxes = np.full((len(frames), per_frame, 4), NO_BOX, np.float32)
    classes = np.zeros((len(frames), per_frame), np.int64)
    for frame, detections in enumerate(frames):
        for slot, detection in enumerate(largest_of_surest(detections, per_frame)):
            boxes[frame, slot] = detection.box
            classes[frame, slot] = detection.label

    # Classes get trajectories in the order in which they appear; the last ones may have boxes, but no trajectory.
    seen = dict.fromkeys(classes[classes > 0].tolist())
    ids = np.zeros(2 * per_frame, np.int64)
    followed = list(seen)[: 2 * per_frame]
    ids[: len(followed)] = followed
    return ClipBoxes(boxes, classes, ids)


def largest_of_surest(detections: Sequence[Detection], per_frame: int) -> list[Detection]:
    """Choose boxes of one frame: the `per_frame` largest distinct ones, largest first.

    In the order of the detector, keeps the first box of each class that overlaps no box kept before, up to twice
    `per_frame` boxes. Of these, returns the largest; among equal sizes, the more confident box comes first.
    """
    kept: list[Detection] = []
    for detection in detections:
        if len(kept) == 2 * per_frame:
            break
        is_new = all(detection.label != other.label for other in kept)
        if is_new and all(overlap(detection.box, other.box) < MOST_OVERLAP for other in kept):
            kept.append(detection)

    # Sorting is stable: confidence only decides between boxes of equal size.
    kept = sorted(kept, key=lambda detection: -detection.confidence)
    return sorted(kept, key=lambda detection: -area(detection.box))[:per_frame]


def confidence_sums(frames: Sequence[Sequence[Detection]], per_frame: int) -> Mapping[int, float]:
    """The summed confidence of each class over its chosen boxes, in the order in which classes appear."""
    sums: dict[int, float] = {}
    for detections in frames:
        for detection in largest_of_surest(detections, per_frame):
            sums[detection.label] = sums.get(detection.label, 0.0) + detection.confidence
    return sums


def area(box: Sequence[float]) -> float:
    """In square pixels; 0 for a box that is turned inside out."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes, 0 where both are empty."""
    corners = [max(first[0], second[0]), max(first[1], second[1]), min(first[2], second[2]), min(first[3], second[3])]
    shared = area(corners)
    whole = area(first) + area(second) - shared
    return shared / whole if whole > 0 else 0.0
