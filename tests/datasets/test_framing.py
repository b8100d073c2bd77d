"""Resizing and cutting frames, against PIL and by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.Image import Resampling

from datasets.framing import crop_centre, crop_random, resize, resize_shorter_side

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
