"""Quadtrees of each frame, joined over time (STTM, ICCV 2025): squares of like patches become one token.

A pyramid is made of each frame. From the coarsest level down, a square stays whole if all its parts are like it;
otherwise its parts are tested next. Then squares of neighbouring frames are joined if one contains the other and they
are alike.

Every patch names the first patch of the square, or of the joined squares, that holds it: by its flat index among all
patches of the video.
Shapes: B videos, T frames, H W rows and columns of patches, N = T H W patches, K what is compared, P pairs.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from configs.squares import level_sides

SMALLEST_PRODUCT = 1e-24
"""Of lengths; where it is less, one of the two has none, and the cosine is 0."""


class Trees(NamedTuple):
    """Which square holds each patch.

    Attributes:
        held_by: (B, T, H, W) int64, the first patch of its square.
        weight: (B, T, H, W) float64, how much of its square's mean each patch is, which adds up to 1; None: all alike.
    """

    held_by: Tensor
    weight: Tensor | None


class Level(NamedTuple):
    """A level of the pyramid above the finest.

    Attributes:
        splits_above: (B, T, h, w) float32, each square is split at any threshold above this.
        parts: (h, w) int64, how many squares of the next finer level each has: 1, 2 or 4.
    """

    splits_above: Tensor
    parts: Tensor


def trees_by_threshold(
    compared_BTHWK: Tensor, threshold: float, root_level: int = 0, reference_form: bool = False
) -> Trees:
    """Squares whose cosine with each of their parts is `threshold` or more.

    `reference_form` also tests the parts that squares at an odd side lack, as if they were the first square of the
    level, and takes the plain mean of parts, not of patches.
    """
    levels = pyramid(compared_BTHWK, root_level, reference_form)
    splits = [level.splits_above < threshold for level in levels]
    return _trees(splits, levels, compared_BTHWK, reference_form)


def trees_by_count(compared_BTHWK: Tensor, count: int, root_level: int = 0, reference_form: bool = False) -> Trees:
    """The finest trees that divide all frames of a video into at most `count` squares; into the coarsest, if none does.

    Squares split in the order of a rising threshold; of equal cosines, the first ones and those that hold others do.
    """
    levels = pyramid(compared_BTHWK, root_level, reference_form)
    if not levels:
        return _trees([], [], compared_BTHWK, reference_form)
    num_frames = compared_BTHWK.shape[1]

    # No square splits before those that hold it: its value is no less, and it stands behind them.
    coarse_first = levels[::-1]
    values = torch.cat([level.splits_above.flatten(1) for level in coarse_first], dim=1)
    gains = torch.cat([(level.parts - 1).flatten().repeat(num_frames) for level in coarse_first])
    order = values.argsort(dim=1, stable=True)
    reached = num_frames * coarse_first[0].parts.numel() + gains[order].cumsum(dim=1)
    splits = torch.zeros_like(order, dtype=torch.bool).scatter(1, order, reached <= count)

    lengths = [num_frames * level.parts.numel() for level in coarse_first]
    by_level = [
        part.view(level.splits_above.shape)
        for part, level in zip(splits.split(lengths, dim=1), coarse_first, strict=True)
    ]
    return _trees(by_level[::-1], levels, compared_BTHWK, reference_form)


def pyramid(compared_BTHWK: Tensor, root_level: int, reference_form: bool) -> list[Level]:
    """The levels above the finest, finest first; cosines in float64, rounded once."""
    mean = compared_BTHWK.double()
    area = mean.new_ones(1, 1, *mean.shape[2:4], 1)
    likes, parts = [], []
    for _ in level_sides(mean.shape[2], mean.shape[3], root_level)[1:]:
        children, areas, exists = _parts_of(mean), _parts_of(area), _parts_of(torch.ones_like(area))
        weight = exists if reference_form else areas
        share = weight / weight.sum(dim=-2, keepdim=True)

        tested = exists.squeeze(-1) > 0
        if reference_form:
            first = mean[:, :, :1, :1].unsqueeze(-2)
            children, tested = torch.where(exists > 0, children, first), torch.ones_like(tested)

        # The products of parts with each other give their cosines with their mean.
        products = children @ children.transpose(-1, -2)
        with_mean = (products @ share).squeeze(-1)
        length = products.diagonal(dim1=-2, dim2=-1).sqrt()
        length_of_mean = (with_mean * share.squeeze(-1)).sum(dim=-1, keepdim=True).clamp(min=0).sqrt()
        cosine = (with_mean / (length * length_of_mean).clamp(min=SMALLEST_PRODUCT)).float()
        likes.append(cosine.masked_fill(~tested, torch.inf).amin(dim=-1))

        parts.append(exists.sum(dim=(-2, -1)).long()[0, 0])
        mean, area = (share * children).sum(dim=-2), areas.sum(dim=-2)

    # A square is only tested where those that hold it are split: it splits above its own value and all of theirs.
    for level in range(len(likes) - 2, -1, -1):
        likes[level] = torch.maximum(likes[level], _of_parents(likes[level + 1], likes[level].shape[2:]))
    return [Level(*pair) for pair in zip(likes, parts, strict=True)]


def joined_by_threshold(trees: Trees, compared_BTHWK: Tensor, threshold: float) -> Trees:
    """Join squares of neighbouring frames, of which one contains the other, whose cosine is `threshold` or more.

    All squares that are linked, directly or by others, become one. Departs from the reference, which stops before all
    links are followed, where depends on the rest of the video.
    """
    pairs, cosine = _pairs_in_time(trees, compared_BTHWK)
    return trees._replace(held_by=components(trees.held_by, pairs, cosine >= threshold))


def joined_by_count(trees: Trees, compared_BTHWK: Tensor, count: int) -> Trees:
    """The same with the highest threshold of each video that leaves at most `count` squares; all links if none does."""
    pairs, cosine = _pairs_in_time(trees, compared_BTHWK)
    if not cosine.shape[1]:
        return trees

    # The lower the threshold, the fewer squares are left: search among the cosines, the highest first.
    candidates = cosine.sort(dim=1, descending=True).values
    too_many = cosine.new_full((len(cosine), 1), -1, dtype=torch.int64)
    few_enough = torch.full_like(too_many, cosine.shape[1] - 1)
    while bool((few_enough - too_many > 1).any()):
        middle = ((too_many + few_enough) // 2).clamp(min=0)
        joined = components(trees.held_by, pairs, cosine >= candidates.gather(1, middle))
        fits = num_squares(joined).unsqueeze(1) <= count
        few_enough, too_many = torch.where(fits, middle, few_enough), torch.where(fits, too_many, middle)

    threshold = candidates.gather(1, few_enough)
    threshold = threshold.masked_fill(num_squares(trees.held_by).unsqueeze(1) <= count, torch.inf)
    return trees._replace(held_by=components(trees.held_by, pairs, cosine >= threshold))


def num_squares(held_by_BTHW: Tensor) -> Tensor:
    """How many squares, or groups of joined ones, each video has, (B,)."""
    flat = held_by_BTHW.flatten(1)
    return (flat == torch.arange(flat.shape[1], device=flat.device)).sum(dim=1)


def components(held_by_BTHW: Tensor, pairs_BP2: Tensor, linked_BP: Tensor) -> Tensor:
    """Who holds each patch, (B, T, H, W), once all squares that are linked by pairs are one: the first of them does."""
    flat = held_by_BTHW.flatten(1)
    root = torch.arange(flat.shape[1], device=flat.device).expand_as(flat)
    while True:
        one, other = (root.gather(1, end) for end in pairs_BP2.unbind(dim=-1))
        differ = linked_BP & (one != other)
        if not bool(differ.any()):
            return root.gather(1, flat).view_as(held_by_BTHW)

        # Hang the later of two roots below the earlier one, then let every square point at its root.
        later, earlier = (torch.where(differ, end, 0) for end in (torch.maximum(one, other), torch.minimum(one, other)))
        root = root.scatter_reduce(1, later, earlier, "amin")
        while not torch.equal(root, jumped := root.gather(1, root)):
            root = jumped


def square_means(trees: Trees, compared_BTHWK: Tensor) -> Tensor:
    """For every patch the mean (B, T, H, W, K) of its square, float64."""
    means = _means(trees, compared_BTHWK)
    return means.index_select(0, _rows(trees.held_by).flatten()).view(compared_BTHWK.shape)


def _means(trees: Trees, compared_BTHWK: Tensor) -> Tensor:
    """The means (B N, K), float64, of all squares, in the rows of their first patches; other rows are zero."""
    values, row = compared_BTHWK.double().flatten(0, 3), _rows(trees.held_by).flatten()
    if trees.weight is not None:
        values = values * trees.weight.flatten().unsqueeze(-1)
    sums = torch.zeros_like(values).index_add_(0, row, values)
    weight = torch.ones_like(values[:, 0]) if trees.weight is None else trees.weight.flatten()
    totals = torch.zeros_like(weight).index_add_(0, row, weight)
    return sums.div_(totals.clamp(min=torch.finfo(totals.dtype).tiny).unsqueeze(-1))


def _rows(held_by_BTHW: Tensor) -> Tensor:
    """Flat indices among all patches of all videos, (B, T, H, W)."""
    batch, num_patches = len(held_by_BTHW), held_by_BTHW[0].numel()
    return held_by_BTHW + num_patches * torch.arange(batch, device=held_by_BTHW.device).view(-1, 1, 1, 1)


def _pairs_in_time(trees: Trees, compared_BTHWK: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs (B, P, 2) of squares in neighbouring frames that overlap, and their cosines (B, P), float32.

    Of two squares of such trees that overlap, one contains the other. So each place of a frame and the next names a
    pair, some of them more than once.
    """
    unit = F.normalize(_means(trees, compared_BTHWK), dim=-1)
    rows = _rows(trees.held_by)

    # A frame at a time, so that copies stay small.
    cosines = [torch.zeros_like(trees.held_by[:, :0], dtype=torch.float32)]
    for frame in range(rows.shape[1] - 1):
        one, other = (unit[rows[:, index]] for index in (frame, frame + 1))
        cosines.append((one * other).sum(dim=-1).float().unsqueeze(1))

    pairs = torch.stack([trees.held_by[:, :-1], trees.held_by[:, 1:]], dim=-1)
    return pairs.flatten(1, 3), torch.cat(cosines, dim=1).flatten(1)


def _trees(splits: list[Tensor], levels: list[Level], compared_BTHWK: Tensor, reference_form: bool) -> Trees:
    """The trees in which these squares of each level, finest first, are split."""
    batch, num_frames, height, width = compared_BTHWK.shape[:4]
    device = compared_BTHWK.device
    before_frame = height * width * torch.arange(num_frames, device=device)[:, None, None]

    # At the finest level, every patch is a square.
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    row_of, column_of = rows, columns
    held_by = (before_frame + rows[:, None] * width + columns).expand(batch, -1, -1, -1)
    share = torch.ones(height, width, dtype=torch.float64, device=device)
    weight = share.expand(held_by.shape)

    # Going up, a square that is whole replaces those in it.
    for split, level in zip(splits, levels, strict=True):
        row_of, column_of = _parents(len(rows), device)[row_of], _parents(len(columns), device)[column_of]
        rows, columns = rows[_first_parts(len(rows), device)], columns[_first_parts(len(columns), device)]
        first = before_frame + rows[row_of][:, None] * width + columns[column_of]
        share = share / level.parts[row_of][:, column_of]

        is_whole = ~split[:, :, row_of][..., column_of]
        held_by, weight = torch.where(is_whole, first, held_by), torch.where(is_whole, share, weight)
    return Trees(held_by, weight if reference_form else None)


def _parents(length: int, device: torch.device) -> Tensor:
    """For each of `length` squares of a side, its place at the next coarser level."""
    return (torch.arange(length, device=device) + length % 2) // 2


def _first_parts(length: int, device: torch.device) -> Tensor:
    """For each square of the next coarser level, the first of its one or two parts along a side of `length`."""
    return (2 * torch.arange(-(-length // 2), device=device) - length % 2).clamp(min=0)


def _of_parents(values_BThw: Tensor, sides: tuple[int, ...]) -> Tensor:
    """What each square of the finer level, with these sides, has above it."""
    rows, columns = (_parents(side, values_BThw.device) for side in sides)
    return values_BThw[:, :, rows][..., columns]


def _parts_of(values_BTHWK: Tensor) -> Tensor:
    """The parts (B, T, h, w, 4, K) of every square of the next coarser level; zero where there is none."""
    height, width = values_BTHWK.shape[2:4]
    padded = F.pad(values_BTHWK, (0, 0, width % 2, 0, height % 2, 0))
    return rearrange(padded, "B T (h y) (w x) K -> B T h w (y x) K", y=2, x=2)
