"""Which boxes a model gets, and where they are in its frames."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from datasets.objects.crop import into_frame, placement
from datasets.objects.detections import Detection, choose_boxes, overlap


def test_a_class_counts_once_a_frame_and_the_largest_come_first() -> None:
    frame = [
        Detection(7, (0, 0, 10, 10), 0.2),
        Detection(7, (50, 50, 90, 90), 0.9),
        Detection(8, (0, 0, 10, 9), 0.9),
        Detection(9, (20, 20, 60, 60), 0.1),
        Detection(4, (70, 0, 75, 5), 0.8),
    ]
    chosen = choose_boxes([frame, []], per_frame=2)
    # 7 again is dropped, 8 overlaps it; of 7, 9 and 4 all are among the surest four, and the largest two are kept.
    assert chosen.classes.tolist() == [[9, 7], [0, 0]]
    assert chosen.boxes[0, 0].tolist() == [20, 20, 60, 60] and (chosen.boxes[1] == -1).all()
    assert chosen.trajectory_ids.tolist() == [9, 7, 0, 0]


def test_overlap_by_counting_pixels() -> None:
    first, second = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    first[2:12, 3:20], second[5:25, 10:28] = True, True
    assert overlap((3, 2, 20, 12), (10, 5, 28, 25)) == pytest.approx((first & second).sum() / (first | second).sum())
    assert overlap((0, 0, 0, 0), (0, 0, 0, 0)) == 0


@pytest.mark.parametrize(("width", "height"), [(64, 40), (40, 64), (50, 50), (63, 41)])
@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_boxes_follow_the_pixels_of_the_frame(width: int, height: int, fit: str) -> None:
    """A bright rectangle, resized and cropped by torchvision, lies where its box is."""
    size = 20
    for x1, y1, x2, y2 in ((14, 12, 30, 30), (0, 0, 25, 16), (20, 20, 40, 40)):
        picture = torch.zeros(1, height, width)
        picture[:, y1:y2, x1:x2] = 1
        if fit == "squash":
            seen = functional.resize(picture, [size, size], antialias=True)
        else:
            seen = functional.center_crop(functional.resize(picture, [size], antialias=True), [size, size])
        (found,) = into_frame([Detection(1, (x1, y1, x2, y2), 1.0)], width, height, size, fit)  # type: ignore[arg-type]
        bright = (seen[0] > 0.5).nonzero()
        top, left = bright.min(dim=0).values.tolist()
        bottom, right = (bright.max(dim=0).values + 1).tolist()
        assert np.allclose(found.box, (left, top, right, bottom), atol=1.01)


def test_boxes_outside_the_crop_are_left_out() -> None:
    assert placement(400, 200, 224, "crop") == (448, 224, 112, 0)
    inside, outside = Detection(1, (90, 0, 200, 100), 1.0), Detection(2, (0, 0, 50, 50), 1.0)
    found = into_frame([outside, inside], 400, 200, 224, "crop")
    assert [detection.label for detection in found] == [1]
    assert found[0].box == pytest.approx((0, 0, 112, 112))
