from itertools import combinations

import numpy as np
import pytest

from datasets.stories.pictures import RGB, render
from datasets.stories.stories import ACTIONS, BACKGROUNDS, COLOURS, SHAPES, Scene, Thing


def draw(colour: str, shape: str, action: str, background: str = "plain", seed: int = 0) -> np.ndarray:
    """Eight frames of 64 pixels."""
    scene = Scene((Thing(colour, shape, action),), background, 0)
    return render((scene,), 64, 8, np.random.default_rng(seed)).astype(float)


def covered(frames: np.ndarray, colour: str) -> np.ndarray:
    """Which pixels are of the colour."""
    return np.abs(frames - RGB[colour]).max(axis=-1) < 30


def middles(frames: np.ndarray, colour: str) -> np.ndarray:
    """The (x, y) of the colour's middle in each frame, in pixels."""
    return np.array([np.argwhere(mask)[:, ::-1].mean(axis=0) for mask in covered(frames, colour)])


def test_colours_are_far_apart_and_on_the_screen() -> None:
    assert set(RGB) == set(COLOURS)
    for first, second in combinations(RGB.values(), 2):
        assert np.linalg.norm(np.subtract(first, second)) > 100
    for colour in COLOURS:
        for background in BACKGROUNDS:
            share = covered(draw(colour, "square", "blinks", background), colour)[0].mean()
            # A square of 0.85 x 0.4 of the frame's side, within the pixels of its edge.
            assert (0.34 - 1.5 / 32) ** 2 < share < (0.34 + 1.5 / 32) ** 2, (colour, background)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("action", "axis", "sign"),
    [("moves left", 0, -1), ("moves right", 0, 1), ("moves up", 1, -1), ("moves down", 1, 1)],
)
def test_moves(shape: str, action: str, axis: int, sign: int) -> None:
    steps = np.diff(middles(draw("red", shape, action), "red"), axis=0)
    assert (sign * steps[:, axis] > 3).all()
    assert np.abs(steps[:, 1 - axis]).max() < 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_grows_shrinks_and_blinks(shape: str) -> None:
    areas = {a: covered(draw("red", shape, a), "red").sum(axis=(1, 2)) for a in ("grows", "shrinks", "blinks")}
    assert (np.diff(areas["grows"]) > 0).all()
    assert areas["grows"][-1] > 3 * areas["grows"][0]
    assert (np.diff(areas["shrinks"]) < 0).all()
    on = np.array([True, False, False, True, False, True, True, False])
    assert areas["blinks"][on].min() > 1.2 * areas["blinks"][~on].max()
    assert areas["blinks"].min() > 20


def test_bounces_on_the_spot() -> None:
    frames = draw("red", "circle", "bounces")
    x, y = middles(frames, "red").T
    assert np.ptp(x) < 1
    assert np.ptp(y) > 15
    turns = np.sign(np.diff(y))
    assert (turns[1:] != turns[:-1]).sum() >= 3


def test_spins_in_place() -> None:
    frames = draw("red", "square", "spins")
    assert np.ptp(middles(frames, "red"), axis=0).max() < 1.5
    masks = covered(frames, "red")
    assert np.ptp(masks.sum(axis=(1, 2))) < 0.12 * masks[0].sum()
    assert min((first ^ second).sum() for first, second in zip(masks, masks[1:], strict=False)) > 20


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("offset", range(4))
def test_two_frames_half_a_scene_apart_tell_the_action(shape: str, offset: int) -> None:
    seen = {
        action: covered(draw("red", shape, action)[[offset, offset + 4]], "red")
        for action in ACTIONS
        if action != "spins" or shape not in ("circle", "ring")
    }
    for first, second in combinations(seen, 2):
        different = (seen[first] ^ seen[second]).sum()
        assert different > 200, (first, second)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_texture_rests_within_a_scene_and_changes_with_the_next(background: str) -> None:
    scene = Scene((Thing("red", "circle", "grows"),), background, 0)
    frames = render((scene, scene), 64, 4, np.random.default_rng(0)).astype(int)
    corner = frames[:, :8, :8]
    assert (corner[:4] == corner[0]).all()
    assert (corner[4:] == corner[4]).all()
    assert np.abs(corner[4] - corner[0]).mean() > 3
    assert corner[0].std() > 3


def test_backgrounds_differ_in_pattern() -> None:
    noise = 6.0
    spread = {kind: draw("red", "circle", "shrinks", kind)[-1, :20].std(axis=(0, 1)).mean() for kind in BACKGROUNDS}
    assert spread["plain"] < 1.3 * noise
    assert all(spread[kind] > 2 * noise for kind in BACKGROUNDS if kind != "plain")


def test_two_things_keep_to_their_halves() -> None:
    for seed in range(20):
        things = (Thing("red", "circle", "moves down"), Thing("blue", "square", "grows"))
        frames = render((Scene(things, "plain", 0),), 64, 8, np.random.default_rng(seed)).astype(float)
        red, blue = middles(frames, "red")[:, 0], middles(frames, "blue")[:, 0]
        assert (np.abs(red - blue) > 25).all()
