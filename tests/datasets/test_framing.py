"""Resizing and cutting frames, against PIL and by hand."""

from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.Image import Resampling
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize as torchvision_resize

from configs.sampling import Interpolation
from datasets.framing import (
    CUTS,
    FITS,
    RESIZES,
    SMALLEST_PART,
    Framing,
    crop_centre,
    crop_random,
    resize,
    resize_shorter_side,
)
from datasets.transforms import random_box

FRAMES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 37, 50), dtype=np.uint8))


def by_pil(size: tuple[int, int], resampling: Resampling) -> torch.Tensor:
    height, width = size
    images = [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in FRAMES]
    resized = [np.asarray(image.resize((width, height), resampling)) for image in images]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [(37, 50), (12, 31), (100, 77), (1, 1), (36, 49), (74, 100)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_resizing_is_pils(interpolation: str, size: tuple[int, int]) -> None:
    assert torch.equal(resize(FRAMES, size, interpolation), by_pil(size, Resampling[interpolation.upper()]))


def test_nearest_is_pils_for_every_pair_of_lengths() -> None:
    for before in range(1, 70):
        row = np.arange(before, dtype=np.int32)[None]
        pixels = torch.from_numpy(row).expand(3, 1, -1)
        for after in range(1, 140, 3):
            expected = np.asarray(Image.fromarray(row).resize((after, 1), Resampling.NEAREST))[0]
            assert resize(pixels, (1, after), "nearest")[0, 0].tolist() == expected.tolist()


def test_one_image_is_resized_as_many_are() -> None:
    assert torch.equal(resize(FRAMES[0], (9, 8), "bilinear"), resize(FRAMES, (9, 8), "bilinear")[0])


@pytest.mark.parametrize(("height", "width", "expected"), [(37, 50, (20, 27)), (50, 37, (27, 20)), (20, 33, (20, 33))])
def test_the_shorter_side_gets_the_size_and_the_other_is_rounded_down(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    pixels = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    for interpolation in ("nearest", "bicubic"):
        assert resize_shorter_side(pixels, 20, interpolation).shape[-2:] == expected


def test_the_centre_is_cut_with_halves_rounded_to_even() -> None:
    pixels = torch.arange(13 * 15).view(1, 13, 15).expand(3, -1, -1)
    # (13 - 10) / 2 = 1.5 and (15 - 10) / 2 = 2.5 are both 2.
    assert torch.equal(crop_centre(pixels, 10), pixels[:, 2:12, 2:12])


def test_random_crops_reach_every_place_and_are_the_same_for_all_frames() -> None:
    pixels = torch.arange(6 * 7).view(1, 6, 7).expand(4, 3, -1, -1)
    crops = [crop_random(pixels, 5, np.random.default_rng(seed)) for seed in range(60)]
    assert {int(crop[0, 0, 0, 0]) for crop in crops} == {0, 1, 2, 7, 8, 9}
    assert all(torch.equal(crop, crop[:1].expand(4, -1, -1, -1)) for crop in crops)


def test_frames_too_small_for_a_crop_are_refused() -> None:
    for cut in (crop_centre, lambda pixels, size: crop_random(pixels, size, np.random.default_rng(0))):
        with pytest.raises(ValueError, match="37 x 50 pixels hold no square of 38"):
            cut(FRAMES, 38)


@pytest.mark.parametrize("size", [(12, 31), (100, 77), (37, 50)])
def test_bicubic_without_antialiasing_is_torchvisions_of_tensors(size: tuple[int, int]) -> None:
    expected = torchvision_resize(FRAMES, list(size), InterpolationMode.BICUBIC, antialias=False)
    assert torch.equal(resize(FRAMES, size, "bicubic_aliased"), expected)
    shrinks = size != (37, 50)
    assert torch.equal(resize(FRAMES, size, "bicubic"), expected) != shrinks


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("interpolation", RESIZES)
def test_evaluations_squares_follow_from_fit_and_interpolation(fit: str, interpolation: str) -> None:
    square = Framing(20, fit, interpolation, resize=24).square(FRAMES, np.random.default_rng(0))
    if fit == "squash":
        assert torch.equal(square, resize(FRAMES, (20, 20), interpolation))
    else:
        # 37 x 50 becomes 24 x 32, of which 20 x 20 are cut out, 2 from the top and 6 from the left.
        assert torch.equal(square, resize(FRAMES, (24, 32), interpolation)[..., 2:22, 6:26])


def test_a_random_crop_is_of_the_resized_frames() -> None:
    whole = resize(FRAMES, (24, 32), "nearest")
    places = [whole[..., top : top + 20, left : left + 20] for top in range(5) for left in range(13)]
    seen = set()
    for seed in range(200):
        square = Framing(20, "crop", "nearest", 24, "crop").square(FRAMES, np.random.default_rng(seed))
        seen |= {number for number, place in enumerate(places) if torch.equal(square, place)}
    assert len(seen) > 55  # of 65; each is hit with a chance of 95 %


def test_a_resized_crop_shows_at_least_half_of_the_area_and_is_mirrored_half_of_the_time() -> None:
    """By the positions that pixels show: columns rise from left to right, or fall where the crop is mirrored."""
    height, width = 60, 80
    across = torch.linspace(0, 255, width).to(torch.uint8).expand(height, -1)
    down = torch.linspace(0, 255, height).to(torch.uint8)[:, None].expand(-1, width)
    pixels = torch.stack([across, down, across])[None]
    mirrored, shares = 0, []
    for seed in range(200):
        square = Framing(32, "squash", "bilinear", augment="resized_crop").square(pixels, np.random.default_rng(seed))
        assert square.shape == (1, 3, 32, 32)
        first, last = (float(square[0, 0, 16, column]) for column in (0, -1))
        top, bottom = (float(square[0, 1, row, 16]) for row in (0, -1))
        mirrored += first > last
        assert bottom > top
        shares.append(abs(last - first) / 255 * (bottom - top) / 255)
    assert 70 < mirrored < 130 and 0.42 < min(shares) < 0.55 and max(shares) > 0.85


def test_strong_crops_change_brightness_and_contrast_of_all_frames_alike() -> None:
    """On frames of one colour each: the same linear function of the colour for a whole clip, another for each clip."""
    colours = torch.tensor([60.0, 90.0, 120.0, 150.0])
    frames = colours.to(torch.uint8)[:, None, None, None].expand(-1, 3, 40, 50)
    framing, slopes = Framing(8, "squash", "bilinear", augment="strong"), []
    for seed in range(100):
        together = framing.square(frames, np.random.default_rng(seed))
        one_by_one = [framing.square(frame, np.random.default_rng(seed)) for frame in frames]
        assert torch.equal(together, torch.stack(one_by_one)) and together.shape == (4, 3, 8, 8)
        values = together[:, 0, 0, 0].float()
        assert torch.equal(together.float(), values[:, None, None, None].expand_as(together))
        slopes.append(float((values[3] - values[0]) / 90))
        assert torch.allclose(values, values[0] + slopes[-1] * (colours - 60), atol=1)
    assert 0.48 < min(slopes) < 0.7 and 1.3 < max(slopes) < 1.7


def test_strong_crops_show_at_least_a_third_of_the_area() -> None:
    across = torch.linspace(0, 255, 80).to(torch.uint8).expand(1, 3, 60, -1)
    boxes = [random_box(60, 80, np.random.default_rng(seed), SMALLEST_PART) for seed in range(200)]
    shares = [height * width / 4800 for _, _, height, width in boxes]
    assert 0.34 < min(shares) < 0.4 and max(shares) > 0.9
    framing = Framing(16, "squash", "bilinear", augment="strong")
    shown = [framing.square(across, np.random.default_rng(seed)).float() for seed in range(40)]
    assert 8 < sum(bool(square[0, 0, 0, 0] > square[0, 0, 0, -1]) for square in shown) < 32, "half are mirrored"


def test_every_name_of_the_configuration_is_there() -> None:
    assert {"ffmpeg", *RESIZES} == set(get_args(Interpolation)) and set(CUTS) == {"crop", "resized_crop", "strong"}
