"""Augmentation against pixel-by-pixel versions of the reference's matrices, and one draw for a whole clip."""

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets import transforms
from datasets.sampling import generator
from datasets.transforms import (
    CLIP_OPERATIONS,
    IMAGE_OPERATIONS,
    apply_operation,
    augment_clip,
    augment_image,
    random_box,
    resize_image,
)


def smooth_image(size: int = 40) -> Tensor:
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 255
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")[0].round().to(torch.uint8)


def rng(index: int, epoch: int = 0) -> np.random.Generator:
    return generator("augmentation", 3, epoch, index)


def warp(image: Tensor, matrix: list[list[float]]) -> np.ndarray:
    """Bilinear warp where `matrix` (2, 3) says where a pixel goes; nan where it looks outside."""
    pixels = image.numpy().astype(float)
    height, width = pixels.shape[1:]
    inverse = np.linalg.inv(np.array([*matrix, [0, 0, 1]], dtype=float))
    out = np.full(pixels.shape, np.nan)
    for y in range(height):
        for x in range(width):
            source_x, source_y, _ = inverse @ [x, y, 1]
            # A hair's breadth, so that whole positions stay whole.
            left, top = int(np.floor(source_x + 1e-9)), int(np.floor(source_y + 1e-9))
            right, bottom = source_x - left, source_y - top
            if 0 <= left < width - 1 and 0 <= top < height - 1:
                above = (1 - right) * pixels[:, top, left] + right * pixels[:, top, left + 1]
                below = (1 - right) * pixels[:, top + 1, left] + right * pixels[:, top + 1, left + 1]
                out[:, y, x] = (1 - bottom) * above + bottom * below
    return out


def turn(degrees: float, size: int) -> list[list[float]]:
    """Counter-clockwise about the middle, y pointing down."""
    cosine, sine, middle = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees)), (size - 1) / 2
    return [
        [cosine, sine, (1 - cosine) * middle - sine * middle],
        [-sine, cosine, sine * middle + (1 - cosine) * middle],
    ]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("name", "level", "matrix"),
    [
        ("shear_x", 5, lambda sign: [[1, sign * 0.15, 0], [0, 1, 0]]),
        ("shear_x", 7, lambda sign: [[1, sign * 0.21, 0], [0, 1, 0]]),
        ("shear_y", 5, lambda sign: [[1, 0, 0], [sign * 0.15, 1, 0]]),
        ("translate_x", 5, lambda sign: [[1, 0, sign * -5], [0, 1, 0]]),
        ("translate_y", 7, lambda sign: [[1, 0, 0], [0, 1, sign * -7]]),
        ("rotate", 5, lambda sign: turn(sign * 15, 40)),
        ("rotate", 7, lambda sign: turn(sign * 21, 40)),
    ],
)
def test_geometry_is_the_reference(name: str, level: int, matrix, sign: int) -> None:
    image = smooth_image()
    expected = warp(image, matrix(sign))
    seen = ~np.isnan(expected)
    actual = apply_operation(image, name, level, sign).numpy()
    assert seen.mean() > 0.6
    assert np.abs(actual[seen] - expected[seen]).max() <= 1
    # What comes in from outside is grey.
    assert name == "translate_x" or name == "translate_y" or 128 in actual[~seen]
    if name.startswith("translate"):
        assert (np.delete(actual, np.flatnonzero(seen)) == 128).mean() > 0.7


def test_level_5_leaves_colours_alone() -> None:
    image = smooth_image()
    for name in ("identity", "contrast", "brightness", "sharpness"):
        assert torch.equal(apply_operation(image, name, 5, 1), image)


def test_level_7_colours() -> None:
    image = smooth_image()
    brighter = apply_operation(image, "brightness", 7, 1).numpy()
    assert np.abs(brighter - (image.numpy() * 1.36).clip(0, 255)).max() <= 1
    pixels = image.float()
    kernel = torch.ones(3, 1, 3, 3)
    kernel[:, :, 1, 1] = 5
    blurred = torch.nn.functional.conv2d(pixels[None], kernel / 13, groups=3)[0]
    inner = pixels[:, 1:-1, 1:-1]
    sharper = (blurred + 1.36 * (inner - blurred)).clamp(0, 255)
    assert (apply_operation(image, "sharpness", 7, 1)[:, 1:-1, 1:-1] - sharper).abs().max() < 1.4


def test_flip() -> None:
    assert torch.equal(apply_operation(smooth_image(), "flip", 5, 1), smooth_image().flip(-1))


def test_unknown_operation() -> None:
    with pytest.raises(ValueError, match="no operation 'solarize'"):
        apply_operation(smooth_image(), "solarize", 5, 1)


def test_a_static_clip_stays_static_and_frames_get_the_same_draw() -> None:
    image, other = smooth_image(), smooth_image().flip(-2)
    for index in range(20):
        clip = augment_clip(torch.stack([image, other, image]), 32, rng(index))
        assert clip.shape == (3, 3, 32, 32) and clip.dtype == torch.uint8
        assert torch.equal(clip[0], clip[2]) and not torch.equal(clip[0], clip[1])
        assert torch.equal(clip[1], augment_clip(other[None], 32, rng(index))[0])


def test_two_distinct_operations_and_a_crop_of_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, float, int]] = []
    crops = set()

    def record(pixels: Tensor, name: str, level: float, sign: int) -> Tensor:
        drawn.append((name, level, sign))
        return pixels

    monkeypatch.setattr(transforms, "apply_operation", record)
    rows_and_columns = torch.stack([torch.arange(8).repeat(8, 1).T, torch.arange(8).repeat(8, 1)] * 2)[:3]
    clip = rows_and_columns.to(torch.uint8)[None]
    for index in range(300):
        crop = augment_clip(clip, 6, rng(index))
        crops.add((int(crop[0, 0, 0, 0]), int(crop[0, 1, 0, 0])))
    assert crops == {(top, left) for top in range(3) for left in range(3)}
    assert all(first[0] != second[0] for first, second in zip(drawn[::2], drawn[1::2], strict=True))
    assert {name for name, _, _ in drawn} == set(CLIP_OPERATIONS)
    assert {(level, sign) for _, level, sign in drawn} == {(5, 1)}

    drawn.clear()
    for index in range(300):
        augment_image(smooth_image(), 16, rng(index))
    assert {name for name, _, _ in drawn} == set(IMAGE_OPERATIONS)
    assert {(level, sign) for _, level, sign in drawn} == {(7, 1), (7, -1)}
    # Two draws an image, each used half of the time.
    assert 0.4 < len(drawn) / 600 < 0.6


def test_draws_follow_from_the_item_and_the_epoch() -> None:
    clip = smooth_image().repeat(2, 1, 1, 1)
    for augment, pixels in ((augment_clip, clip), (augment_image, smooth_image())):
        assert torch.equal(augment(pixels, 32, rng(1)), augment(pixels, 32, rng(1)))
        epochs = {augment(pixels, 32, rng(1, epoch)).numpy().tobytes() for epoch in range(8)}
        assert len(epochs) == 8


def test_random_box_is_half_to_all_of_the_area() -> None:
    shares, ratios = [], []
    for index in range(500):
        top, left, height, width = random_box(90, 120, rng(index))
        assert 0 <= top <= 90 - height and 0 <= left <= 120 - width
        shares.append(height * width / 90 / 120)
        ratios.append(width / height)
    assert 0.49 <= min(shares) < 0.55 and 0.85 < max(shares) <= 1
    assert 0.74 <= min(ratios) < 0.8 and 1.25 < max(ratios) <= 1.35
    assert random_box(10, 1000, rng(0)) == (0, 0, 10, 1000)


def test_images_are_squashed_to_a_square() -> None:
    image = torch.zeros(3, 10, 40, dtype=torch.uint8)
    image[:, :, 20:] = 200
    square = resize_image(image, 20)
    assert square.shape == (3, 20, 20)
    assert (square[..., :8] == 0).all() and (square[..., 12:] == 200).all()
