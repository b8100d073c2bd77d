"""On story videos still ground merges and moving shapes stay apart: measured where it is known where shapes are.

The encoder is untrained: its keys are a random linear image of the pixels, which is enough. They are compared by their
direction, so that this holds for shapes that have a colour. A white or black one differs from grey ground in brightness
alone, and does merge with it. Frames are compared by their mean keys: a vote of patches is decided by the still ground.
"""

import numpy as np
import pytest
import torch

from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from datasets.stories.pictures import RGB, render
from datasets.stories.stories import BACKGROUNDS, Scene, Thing
from inference.pictures.tiles import frame_groups
from inference.pictures.trace import trace_video
from models.testa.video_encoder import VideoEncoder

SIZE, PATCH, DEPTH = 128, 8, 3
SIDE = SIZE // PATCH
MOVING, RESTING = 5, 7


def moves_then_rests(colour: str, shape: str, background: str) -> np.ndarray:
    """The frames of a scene in which a shape moves, and of its last picture again and again."""
    scene = Scene((Thing(colour, shape, "moves right"),), background, 0)
    frames = render((scene,), SIZE, MOVING + 1, np.random.default_rng(0))
    return np.concatenate([frames[:-1], np.repeat(frames[-1:], RESTING, axis=0)])


def coverage(frames: np.ndarray, colour: str) -> np.ndarray:
    """The share (T, L) of each patch that is of the shape's colour."""
    is_shape = np.abs(frames.astype(float) - RGB[colour]).max(axis=-1) < 30
    cells = is_shape.reshape(-1, SIDE, PATCH, SIDE, PATCH).mean(axis=(2, 4))
    return cells.reshape(len(frames), -1)


def untrained(frame_match: str) -> VideoEncoder:
    torch.manual_seed(0)
    return VideoEncoder(
        TestaConfig(depth=DEPTH, width=48, heads=3, patch_size=PATCH),
        VideoConfig(num_frames=MOVING + RESTING, image_size=SIZE),
        AggregationConfig(reducer="geometry", frames_per_block=1, patches_per_block=40, frame_match=frame_match),
    ).eval()


def share_of_shape_with_ground(held: np.ndarray, shape: np.ndarray, ground: np.ndarray) -> float:
    """How many of the shape's cells are one token with a cell that shows ground alone."""
    return float(np.isin(held[shape], np.unique(held[ground])).mean())


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_still_ground_merges_and_moving_shapes_stay_apart(background: str) -> None:
    for colour, shape in (("red", "circle"), ("blue", "square")):
        frames = moves_then_rests(colour, shape, background)
        trace = trace_video(untrained("mean"), torch.from_numpy(frames).permute(0, 3, 1, 2))
        held, covered = trace.blocks[-1], coverage(frames, colour)
        groups = frame_groups(held)
        assert groups[:MOVING] == list(range(MOVING))  # frames in which something moves stay apart
        assert len(set(groups)) == MOVING + RESTING - DEPTH  # so all that merged are among those at rest
        is_shape, is_ground = covered > 0.5, covered == 0
        assert is_shape.sum(axis=1).min() >= 12
        assert share_of_shape_with_ground(held, is_shape, is_ground) == 0
        # The same regions at random places: what chance would mix.
        rng = np.random.default_rng(0)
        by_chance = np.stack([row[rng.permutation(len(row))] for row in held])
        assert share_of_shape_with_ground(by_chance, is_shape, is_ground) > 0.3
        for row, on_ground in zip(held, is_ground, strict=True):
            _, token, count = np.unique(row, return_inverse=True, return_counts=True)
            assert (count[token][on_ground] > 1).mean() > 0.5  # most of the ground is one with other ground


def test_a_vote_over_patches_is_decided_by_still_ground() -> None:
    """Its patches agree to the bit, so theirs is the commonest cosine: all frames are as alike as those at rest."""
    frames = moves_then_rests("red", "circle", "plain")
    trace = trace_video(untrained("vote"), torch.from_numpy(frames).permute(0, 3, 1, 2))
    assert frame_groups(trace.blocks[-1])[:2] == [0, 0]
