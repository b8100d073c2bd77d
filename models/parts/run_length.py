"""Run-length tokens (RLT, NeurIPS 2024): a patch that does not change over time leaves before the first block.

A patch of a frame is compared with the same patch of the frame before, in normalised pixels. Where it did not change,
the earlier token stands for it too. The number of frames that a token stands for is the length of its run. How many
patches stay depends on the video, see `models.parts.ragged`.

Shapes: B videos, T frames, C channels, H W pixels, L patches a frame, M tokens of the video that keeps most.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from einops import rearrange
from torch import Tensor, nn

from configs.aggregation import AggregationConfig
from configs.schedule import kept_of_share
from models.parts.merging import MergePlan, take
from models.parts.pixels import normalise_pixels
from models.parts.ragged import row_length

FRAMES_AT_ONCE = 64
"""Frames that are compared at a time: 40 MB of float32 at 224 pixels."""


class KeptPatches(NamedTuple):
    """Which patches of each video stay; all without gradient.

    Attributes:
        keep: (B, M) int64, flat indices of the patches that stay, ascending in the encoder's order of tokens; padding
            repeats patches of the same video.
        lengths: (B, M) int64, how many patches each stands for, itself included; 0 for padding. A row adds up to T * L.
        origins: (B, T, L) int64, for every patch the place in `keep` of the one that stands for it.
        is_ragged: whether rows may have padding.
        counts: how many patches of each video stay, if rows may have padding and the host knows.
    """

    keep: Tensor
    lengths: Tensor
    origins: Tensor
    is_ragged: bool
    counts: tuple[int, ...] | None = None

    @property
    def mask(self) -> Tensor | None:
        """(B, M) bool, False for padding; None if there can be none."""
        return self.lengths > 0 if self.is_ragged else None

    def select(self, tokens_BND: Tensor) -> Tensor:
        """The tokens (B, M, D) that stay, of all N = T * L."""
        return take(tokens_BND, self.keep)

    def sizes(self, weigh_lengths: bool) -> Tensor:
        """What blocks take for sizes, (B, M) float32: 1 or the length of the run, and 0 for padding."""
        return self.lengths.float() if weigh_lengths else (self.lengths > 0).float()

    def as_plan(self, order: Tensor) -> MergePlan:
        """The plan of one video: what leaves takes nothing along. `order` (T, L) is each patch's flat index."""
        assert len(self.keep) == 1, "plans of several videos are no rectangle"
        slots = self.origins[0].flatten()[order.flatten().argsort()]
        leaves = torch.ones_like(slots, dtype=torch.bool).index_fill(0, self.keep[0], False)
        source = leaves.nonzero().squeeze(1)
        return MergePlan(self.keep, source[None], slots[source][None], torch.zeros(1, len(source), device=slots.device))


@dataclass(frozen=True)
class RunLength:
    """Which patches stay: those that change by more than `threshold`, or the share `keep` that changes most.

    Attributes:
        threshold: in standard deviations of the pixels; a change that equals it is none.
        keep: None for the threshold.
        kept_by: `random` for a share that is drawn without a look at the video.
        weigh_lengths: whether a token counts as often as its run is long, in attention and in the pooled mean.
        pixel_mean, pixel_std: of uint8 frames, on a scale from 0 to 1.
        patch_major: whether the encoder's tokens go patch by patch, not frame by frame.
    """

    threshold: float
    keep: float | None
    kept_by: Literal["change", "random"]
    weigh_lengths: bool
    patch_size: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    patch_major: bool

    @classmethod
    def of(
        cls,
        aggregation: AggregationConfig,
        patch_size: int,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        patch_major: bool = False,
    ) -> "RunLength | None":
        """What a configuration says; None for another reducer."""
        if aggregation.reducer != "run_length":
            return None
        which = aggregation.threshold, aggregation.keep, aggregation.kept_by
        return cls(*which, aggregation.weigh_lengths, patch_size, pixel_mean, pixel_std, patch_major)

    @property
    def has_sizes(self) -> bool:
        """Whether attention has to know sizes: of weighed lengths, or of padding."""
        return self.weigh_lengths or self.is_ragged

    @property
    def is_ragged(self) -> bool:
        """Whether the videos of a batch may keep different numbers of patches."""
        return self.keep is None

    @torch.no_grad()
    def plan(self, video_BTCHW: Tensor, few_lengths: bool = False) -> KeptPatches:
        """Decide for uint8 or normalised videos (B, T, C, H, W), each alone.

        `few_lengths` rounds the length of rows up, for an encoder that compiles a graph for each.
        """
        if self.kept_by == "random":
            change_BTL = random_changes(video_BTCHW, self.patch_size)
        else:
            change_BTL = torch.stack(
                [change_over_time(video, self.patch_size, self.pixel_mean, self.pixel_std) for video in video_BTCHW]
            )

        num_patches = change_BTL[0].numel()
        if self.keep is not None:
            count = kept_of_share(self.keep, *change_BTL.shape[1:])
            return runs(most_changed(change_BTL, count), count, self.patch_major, is_ragged=False)

        stays_BTL = change_BTL > self.threshold
        stays_BTL[:, 0] = True
        counts = stays_BTL.flatten(1).sum(dim=1).tolist()
        longest = row_length(max(counts), num_patches, few_lengths)
        kept = runs(stays_BTL, longest, self.patch_major, is_ragged=True)
        # A graph is of one length, and would be of each number of patches that it is told.
        return kept if few_lengths else kept._replace(counts=tuple(counts))


def num_tokens_in_blocks(before_blocks: object, num_frames: int, num_patches: int) -> int:
    """How many tokens of a video enter the first block; all if its content decides."""
    if isinstance(before_blocks, RunLength) and before_blocks.keep is not None:
        return kept_of_share(before_blocks.keep, num_frames, num_patches)
    return num_frames * num_patches


@runtime_checkable
class LooksBeforeBlocks(Protocol):
    """An encoder that looks at a video before its first block, if `before_blocks` is not None."""

    before_blocks: object


def set_keep(module: nn.Module, share: float) -> None:
    """From now on every encoder in `module` whose run-length tokens are a share of all keeps this `share`."""
    found = 0
    for part in module.modules():
        if isinstance(part, LooksBeforeBlocks) and isinstance(part.before_blocks, RunLength):
            assert not part.before_blocks.is_ragged, "rows of a threshold are no rectangle"
            part.before_blocks = replace(part.before_blocks, keep=share)
            found += 1
    assert found, "no encoder here holds run-length tokens as `before_blocks`"


def change_over_time(
    video_TCHW: Tensor,
    patch_size: int,
    pixel_mean: tuple[float, float, float] | None = None,
    pixel_std: tuple[float, float, float] | None = None,
    tubelet: int = 1,
) -> Tensor:
    """How much each patch differs from the one before it, float32 (T / tubelet, L); infinite in the first frame.

    The mean absolute difference of normalised pixels; uint8 frames are normalised here. For tubelets of several frames,
    as the reference has them, the last frame of each is compared with the first frame of the tubelet before.
    ValueError if frames or pixels do not divide.
    """
    num_frames, _, height, width = video_TCHW.shape
    if num_frames % tubelet or height % patch_size or width % patch_size:
        raise ValueError(
            f"{num_frames} frames of {height} x {width} pixels cannot be cut into patches of {patch_size} and tubelets "
            f"of {tubelet} frames"
        )

    firsts, lasts = video_TCHW[::tubelet][:-1], video_TCHW[tubelet - 1 :: tubelet][1:]
    num_patches = (height // patch_size) * (width // patch_size)
    changes = [torch.full((1, num_patches), torch.inf, device=video_TCHW.device)]
    for before, after in zip(firsts.split(FRAMES_AT_ONCE), lasts.split(FRAMES_AT_ONCE), strict=True):
        difference = (_normalised(after, pixel_mean, pixel_std) - _normalised(before, pixel_mean, pixel_std)).abs()
        cells = rearrange(difference, "T C (H P) (W Q) -> T (H W) (C P Q)", P=patch_size, Q=patch_size)
        # Summed up in float64, so that the order of summation decides nothing.
        changes.append(cells.mean(dim=-1, dtype=torch.float64).float())
    return torch.cat(changes)


def random_changes(video_BTCHW: Tensor, patch_size: int) -> Tensor:
    """Numbers in place of changes, (B, T, L): the same for videos of the same size, infinite in the first frame.

    Each share is part of every larger one. Neither the batch nor the device has a say.
    """
    batch, num_frames, _, height, width = video_BTCHW.shape
    num_patches = (height // patch_size) * (width // patch_size)
    drawn = torch.rand(num_frames, num_patches, generator=torch.Generator().manual_seed(0))
    drawn[0] = torch.inf
    return drawn.to(video_BTCHW.device).expand(batch, -1, -1)


def most_changed(change_BTL: Tensor, count: int) -> Tensor:
    """The `count` patches of each video that change most, bool (B, T, L); of equal ones the first. NaN never stays."""
    change_BN = change_BTL.flatten(1).nan_to_num(nan=-1.0, posinf=torch.inf)
    ranking = change_BN.argsort(dim=1, descending=True, stable=True)
    stays = torch.zeros_like(change_BN, dtype=torch.bool)
    return stays.scatter(1, ranking[:, :count], True).view_as(change_BTL)


def runs(stays_BTL: Tensor, longest: int, patch_major: bool, is_ragged: bool) -> KeptPatches:
    """The tokens of the patches that stay, in rows of `longest`; the first frame stays as a whole."""
    num_frames, num_patches = stays_BTL.shape[1:]
    device = stays_BTL.device
    stays_BN = (stays_BTL.transpose(1, 2) if patch_major else stays_BTL).flatten(1)

    # Those that stay, ascending, then others, as padding.
    keep = stays_BN.logical_not().long().argsort(dim=1, stable=True)[:, :longest]

    # Every patch is represented by the last one of its place that stays.
    times = torch.arange(num_frames, device=device)[:, None]
    held_since = torch.where(stays_BTL, times, 0).cummax(dim=1).values
    order = flat_indices(num_frames, num_patches, device=device, patch_major=patch_major)
    held_by = order.flatten()[held_since * num_patches + torch.arange(num_patches, device=device)]
    slots = stays_BN.long().cumsum(dim=1) - 1
    origins = slots.gather(1, held_by.flatten(1)).view_as(held_by)

    lengths = torch.zeros_like(keep).scatter_add(1, origins.flatten(1), torch.ones_like(slots))
    return KeptPatches(keep, lengths, origins, is_ragged)


def flat_indices(num_frames: int, num_patches: int, *, device: torch.device, patch_major: bool = False) -> Tensor:
    """The place (T, L) of each patch in the encoder's row of tokens."""
    cells = torch.arange(num_frames * num_patches, device=device)
    return cells.view(num_patches, num_frames).T if patch_major else cells.view(num_frames, num_patches)


def _normalised(
    video_TCHW: Tensor, mean: tuple[float, float, float] | None, std: tuple[float, float, float] | None
) -> Tensor:
    if video_TCHW.dtype != torch.uint8:
        return video_TCHW.float()
    assert mean is not None and std is not None
    return normalise_pixels(video_TCHW, mean, std, torch.float32)
