"""Clips whose tokens tie, as still pictures and black bars make them: one answer, whatever is encoded beside them."""

import pytest
import torch
from torch import Tensor, nn

from models.testa.video_encoder import VideoEncoder
from tests.models.tiny import FRAMES, IMAGE, PAIRS, PATCH, clips, encoder


def static() -> Tensor:
    return clips(1, 1).expand(1, FRAMES, 3, IMAGE, IMAGE)


def black_bars() -> Tensor:
    video = clips(1)
    video[..., :PATCH, :] = video[..., -PATCH:, :] = -1.8
    return video


def static_with_black_bars() -> Tensor:
    return black_bars()[:, :1].expand(1, FRAMES, 3, IMAGE, IMAGE)


def repeated_frames() -> Tensor:
    return clips(1, FRAMES // 2).repeat_interleave(2, dim=1)


def without_places(pair: str) -> VideoEncoder:
    """An encoder that tells equal frames, and equal patches, by nothing apart: a new one's time embedding is zero."""
    built = encoder(*PAIRS[pair])
    nn.init.zeros_(built.time_embed)
    nn.init.zeros_(built.pos_embed)
    return built


@pytest.mark.parametrize("make_clip", [static, black_bars, static_with_black_bars, repeated_frames])
@pytest.mark.parametrize("pair", [name for name in PAIRS if "none" not in name])
@torch.no_grad()
def test_ties_are_settled_alike_alone_and_in_every_batch(pair: str, make_clip: object) -> None:
    built, clip = without_places(pair), make_clip()
    alone = built(clip, return_origins=True)
    assert torch.equal(built(clip, return_origins=True).tokens, alone.tokens)
    for batch, position in ((2, 0), (2, 1), (3, 1), (4, 3), (5, 0), (5, 4), (8, 6)):
        video = clips(batch, seed=batch)
        video[position] = clip[0]
        together = built(video, return_origins=True)
        assert torch.equal(together.origins[position], alone.origins[0])
        torch.testing.assert_close(together.tokens[position], alone.tokens[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [5, 9, 33])
@torch.no_grad()
def test_ties_of_odd_lengths(frames: int) -> None:
    """Kernels treat the last rows of odd lengths apart, where rounding may differ."""
    built = without_places("divided-geometry")
    clip = clips(1, 1).expand(1, frames, 3, IMAGE, IMAGE)
    alone = built(clip, return_origins=True)
    together = built(torch.cat([clips(2, frames), clip]), return_origins=True)
    assert torch.equal(together.origins[2], alone.origins[0])


@torch.no_grad()
def test_of_equal_frames_the_first_leave_into_the_first() -> None:
    built = encoder("divided", PAIRS["divided-geometry"][1], depth=1)
    nn.init.zeros_(built.time_embed)
    origins = built(static(), return_origins=True).origins[0]
    kept = [4, 6, 1, 3, 5, 7]  # frames 0 and 2 leave into frame 1
    held_by = {frame: kept.index(1 if frame in (0, 2) else frame) for frame in range(FRAMES)}
    patches = PAIRS["divided-geometry"][1].patches_per_block
    left = IMAGE**2 // PATCH**2 - patches
    assert {frame: int(origins[frame, 0] - 1) // left for frame in range(FRAMES)} == held_by
