"""Run-length tokens: the reference's numbers, and a plain loop over videos and cells."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from models.parts.merging import follow
from models.parts.run_length import RunLength, change_over_time, flat_indices, most_changed, runs


def run_length(
    threshold: float, keep: float | None, weigh_lengths: bool = False, kept_by: Literal["change", "random"] = "change"
) -> RunLength:
    return RunLength(threshold, keep, kept_by, weigh_lengths, 4, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), patch_major=False)


def golden_videos() -> Tensor:
    """The videos (B, T, C, H, W) of the reference's numbers."""
    size = (2, 3, 8, 4, 4)
    b, c, t, h, w = torch.meshgrid(*(torch.arange(float(length)) for length in size), indexing="ij")
    q = 2 * (h // 2) + w // 2
    wave = 0.05 * (1 + b) * (1 + 0.5 * c) * torch.cos(0.4 * t * (1 + q) + 0.2 * h)
    return (torch.sin(0.7 * c + 0.3 * h + 0.5 * w) + wave).transpose(1, 2)


def plain_runs(stays: Tensor, patch_major: bool) -> tuple[list[int], list[int], Tensor]:
    """Indices kept, their lengths and the origins of one video (T, L), one cell after the other."""
    num_frames, num_patches = stays.shape
    cells = [(t, p) for p in range(num_patches) for t in range(num_frames)]
    if not patch_major:
        cells = [(t, p) for t in range(num_frames) for p in range(num_patches)]
    kept = [cell for cell in cells if stays[cell]]
    origins = torch.empty(num_frames, num_patches, dtype=torch.int64)
    for t, p in cells:
        since = max(earlier for earlier in range(t + 1) if stays[earlier, p])
        origins[t, p] = kept.index((since, p))
    lengths = [int((origins == slot).sum()) for slot in range(len(kept))]
    return [cells.index(cell) for cell in kept], lengths, origins


def changing(batch: int = 3, frames: int = 6, patches: int = 5) -> Tensor:
    """Which patches stay, of videos that differ in how many: (B, T, L) bool."""
    share = torch.linspace(0.1, 0.8, batch)[:, None, None]
    stays = torch.rand(batch, frames, patches, generator=torch.Generator().manual_seed(0)) < share
    stays[:, 0] = True
    return stays


def test_the_references_numbers() -> None:
    videos = golden_videos()
    changes = torch.stack([change_over_time(video, 2, tubelet=2) for video in videos])
    expected = torch.tensor(
        [
            [0.054290, 0.134038, 0.108386, 0.024120],
            [0.084062, 0.033281, 0.145336, 0.018364],
            [0.062843, 0.135982, 0.105954, 0.012547],
        ]
    )
    torch.testing.assert_close(changes[:, 1:], torch.stack([expected, 2 * expected]), atol=2e-6, rtol=0)
    assert changes[:, 0].isinf().all()

    stays = changes > 0.1
    shown = ["".join(map(str, row.int().tolist())) for row in stays.flatten(0, 1)]
    assert shown == ["1111", "0110", "0010", "0110", "1111", "1110", "1010", "1110"]

    kept = runs(stays, 12, patch_major=False, is_ragged=True)
    assert kept.lengths.tolist() == [
        [4, 1, 1, 4, 2, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 4, 1, 2, 1, 1, 1, 1, 1, 1],
    ]


def test_lengths_have_the_order_of_tokens() -> None:
    stays = torch.tensor([[[True, True], [True, False], [True, False]]])
    kept = runs(stays, 4, patch_major=False, is_ragged=True)
    assert kept.keep.tolist() == [[0, 1, 2, 4]]
    assert kept.lengths.tolist() == [[1, 3, 1, 1]]  # the reference: 1 1 1 3


def test_a_change_that_equals_the_threshold_is_none() -> None:
    steps = torch.tensor([0.0, 0.125, 0.25]).repeat_interleave(2)
    video = steps[:, None, None, None].expand(6, 3, 4, 4)
    change = change_over_time(video, 4, tubelet=2)
    assert (change > 0.125).sum() == 1
    assert (change > 0.1249).sum() == 3


def test_inner_frames_of_a_tubelet_are_not_seen_and_drift_is_dropped() -> None:
    video = torch.zeros(8, 3, 4, 4)
    video[5:7] = 9.0  # inside the second tubelet of four frames
    assert (change_over_time(video, 4, tubelet=4) > 0.1).sum() == 1
    ramp = (0.03 * torch.arange(16.0))[:, None, None, None].expand(16, 3, 4, 4)
    assert (change_over_time(ramp, 4, tubelet=2) > 0.1).sum() == 1
    assert (change_over_time(ramp * 0.034 / 0.03, 4, tubelet=2) > 0.1).sum() == 8


def test_frames_and_pixels_have_to_divide() -> None:
    with pytest.raises(ValueError, match="cannot be cut"):
        change_over_time(torch.zeros(5, 3, 4, 4), 4, tubelet=2)
    with pytest.raises(ValueError, match="cannot be cut"):
        change_over_time(torch.zeros(4, 3, 6, 4), 4)


@pytest.mark.parametrize("patch_major", [False, True])
def test_runs_equal_a_plain_loop(patch_major: bool) -> None:
    stays = changing()
    longest = int(stays.flatten(1).sum(dim=1).max())
    kept = runs(stays, longest, patch_major, is_ragged=True)
    assert kept.mask is not None

    for row, one in enumerate(stays):
        indices, lengths, origins = plain_runs(one, patch_major)
        padding = [0] * (longest - len(lengths))
        assert kept.keep[row, : len(indices)].tolist() == indices
        assert kept.lengths[row].tolist() == lengths + padding
        assert torch.equal(kept.origins[row], origins)
        assert kept.mask[row].tolist() == [True] * len(indices) + [False] * len(padding)

        # The plan of one video alone carries the origins of an untouched one to the same place.
        alone = runs(one[None], len(indices), patch_major, is_ragged=True)
        order = flat_indices(*one.shape, device=one.device, patch_major=patch_major)
        plan = alone.as_plan(order)
        assert sorted(plan.keep[0].tolist() + plan.source[0].tolist()) == list(range(one.numel()))
        represented = follow(order[None], plan._replace(weight=None), one.numel(), 1)
        assert torch.equal(represented, origins[None])


@pytest.mark.parametrize("uint8", [False, True])
def test_plans_of_a_batch_are_those_of_each_video(uint8: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    videos = torch.randn(3, 6, 3, 8, 8, generator=generator) * torch.tensor([0.02, 0.09, 0.4]).view(3, 1, 1, 1, 1)
    if uint8:
        videos = (videos * 64 + 128).clamp(0, 255).byte()
    for keep in (None, 0.5):
        reducer = run_length(0.1, keep)
        together = reducer.plan(videos)
        counts = (together.lengths > 0).sum(dim=1)
        assert keep is not None or len(set(counts.tolist())) == 3
        for row, video in enumerate(videos):
            alone = reducer.plan(video[None])
            assert torch.equal(alone.keep[0], together.keep[row, : counts[row]])
            assert torch.equal(alone.lengths[0], together.lengths[row, : counts[row]])
            assert torch.equal(alone.origins[0], together.origins[row])


def test_random_patches_are_those_of_every_video_and_of_every_larger_share() -> None:
    videos = torch.randn(3, 6, 3, 8, 20, generator=torch.Generator().manual_seed(2))
    before = torch.get_rng_state()
    kept = [run_length(0.1, share, kept_by="random").plan(videos) for share in (0.25, 0.5, 0.75)]
    assert torch.equal(torch.get_rng_state(), before)
    assert [one.keep.shape[1] for one in kept] == [15, 30, 45]

    patches = [set(one.keep[0].tolist()) for one in kept]
    assert set(range(10)) < patches[0] < patches[1] < patches[2]  # the first frame, then ever more
    later = patches[1] - set(range(10))
    assert later != set(range(10, 30))
    assert {index // 10 for index in later} == {1, 2, 3, 4, 5}

    # Neither content nor company matters, and nothing is drawn anew.
    alone = run_length(0.1, 0.5, kept_by="random").plan(torch.zeros(1, 6, 3, 8, 20, dtype=torch.uint8))
    for row in range(3):
        assert torch.equal(kept[1].keep[row], alone.keep[0])
        assert torch.equal(kept[1].lengths[row], alone.lengths[0])
        assert torch.equal(kept[1].origins[row], alone.origins[0])
    assert int(alone.lengths.sum()) == 60


def test_a_share_is_exact_and_of_ties_the_first_stay() -> None:
    change = torch.tensor([[[math.inf] * 3, [0.5, 0.2, 0.5], [0.5, math.nan, 0.1]]])
    assert most_changed(change, 4).int().tolist() == [[[1, 1, 1], [1, 0, 0], [0, 0, 0]]]
    assert most_changed(change, 7).int().tolist() == [[[1, 1, 1], [1, 1, 1], [1, 0, 0]]]
    assert most_changed(change, 8).int().tolist() == [[[1, 1, 1], [1, 1, 1], [1, 0, 1]]]

    still = torch.zeros(2, 4, 3, 8, 8)
    for keep, count in ((0.25, 4), (0.3, 5), (1.0, 16)):
        kept = run_length(0.1, keep).plan(still)
        assert kept.keep.shape == (2, count)
        assert kept.keep.tolist() == [list(range(count))] * 2
        assert kept.mask is None


def test_a_still_video_keeps_one_frame_and_nan_is_no_change() -> None:
    still = torch.full((1, 5, 3, 8, 8), 0.3)
    still[:, 3] = math.nan
    kept = run_length(0.1, None, True).plan(still)
    assert kept.keep.tolist() == [[0, 1, 2, 3]]
    assert kept.sizes(weigh_lengths=True).tolist() == [[5.0] * 4]
    assert kept.sizes(weigh_lengths=False).tolist() == [[1.0] * 4]


def test_rows_of_compiled_encoders_have_few_lengths() -> None:
    generator = torch.Generator().manual_seed(1)
    videos = torch.randn(9, 1, 16, 3, 8, 8, generator=generator) * torch.linspace(0.02, 0.15, 9).view(9, 1, 1, 1, 1, 1)
    reducer = run_length(0.1, None)
    lengths = [reducer.plan(video, few_lengths=True).keep.shape[1] for video in videos]
    exact = [reducer.plan(video).keep.shape[1] for video in videos]
    assert len(set(exact)) > 3
    assert all(length % 8 == 0 and own <= length < own + 8 for length, own in zip(lengths, exact, strict=True))
