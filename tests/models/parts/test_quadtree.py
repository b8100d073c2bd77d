"""Quadtrees and what joins them over time: golden numbers of the reference, recursion, and a plain union of sets."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from configs.squares import level_sides
from models.parts.quadtree import (
    Trees,
    components,
    joined_by_count,
    joined_by_threshold,
    num_squares,
    square_means,
    trees_by_count,
    trees_by_threshold,
)

Square = tuple[int, int, int, int]
"""Its first row and column, and those behind its last."""


def wave(num_frames: int) -> Tensor:
    """The golden input, (1, T, 4, 4, 4)."""
    channel = torch.arange(4).double()
    frame, row, column = (torch.arange(length).double() for length in (num_frames, 4, 4))
    frame, row, column = frame[:, None, None, None], row[:, None, None], column[:, None]
    place = 0.35 * row * (1 + channel % 2) + 0.15 * column * (channel % 3)
    return torch.cos(0.5 * channel + place + 0.1 * frame * channel)[None]


def areas(trees: Trees) -> list[int]:
    """How many patches each square of the first video holds, in order."""
    return trees.held_by[0].flatten().unique(return_counts=True)[1].tolist()


def means(trees: Trees, compared: Tensor) -> Tensor:
    return square_means(trees, compared)[0].flatten(0, 2)[trees.held_by[0].flatten().unique()]


def spans(length: int) -> list[list[tuple[int, int]]]:
    """For each level, finest first, from where to where its rows reach; an odd number leaves the first one alone."""
    levels = [[(start, start + 1) for start in range(length)]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        alone = below[:1] if len(below) % 2 else []
        pairs = zip(below[len(alone) :: 2], below[len(alone) + 1 :: 2], strict=True)
        levels.append(alone + [(first[0], second[1]) for first, second in pairs])
    return levels


def squares_by_recursion(frame: Tensor, threshold: float, root_level: int) -> list[Square]:
    """The squares of one frame (H, W, K), each tested with its parts alone."""
    rows, columns = spans(len(frame)), spans(frame.shape[1])
    root = len(level_sides(*frame.shape[:2], root_level)) - 1

    def mean_of(square: Square) -> Tensor:
        return frame[square[0] : square[1], square[2] : square[3]].flatten(0, 1).mean(dim=0)

    def below(square: Square, level: int) -> list[Square]:
        own_rows = [span for span in rows[level] if square[0] <= span[0] < square[1]]
        own_columns = [span for span in columns[level] if square[2] <= span[0] < square[3]]
        return [(*row, *column) for row in own_rows for column in own_columns]

    def divide(square: Square, level: int) -> list[Square]:
        parts = below(square, level - 1) if level else []
        like = [float(F.cosine_similarity(mean_of(square), mean_of(part), dim=0)) >= threshold for part in parts]
        return [square] if all(like) else [one for part in parts for one in divide(part, level - 1)]

    return [one for root_square in below((0, len(frame), 0, frame.shape[1]), root) for one in divide(root_square, root)]


def held_by(squares: list[Square], height: int, width: int) -> Tensor:
    holder = torch.full((height, width), -1)
    for top, bottom, left, right in squares:
        assert (holder[top:bottom, left:right] == -1).all()
        holder[top:bottom, left:right] = top * width + left
    assert (holder >= 0).all()
    return holder


def joined_by_sets(trees: Trees, compared: Tensor, threshold: float) -> Tensor:
    """One video's holders (T, H, W) after joining: pairs by a test of boxes, groups of sets that touch."""
    num_frames, height, width = trees.held_by.shape[1:]
    mean = square_means(trees, compared)[0].flatten(0, 2)
    flat = trees.held_by[0].flatten().tolist()
    cells = {first: {place for place, holder in enumerate(flat) if holder == first} for first in set(flat)}
    area = height * width

    groups = [{first} for first in cells]
    for one, own in cells.items():
        for other, others in cells.items():
            if one // area + 1 != other // area:
                continue
            here, there = {place % area for place in own}, {place % area for place in others}
            contains = here <= there or there <= here
            if contains and float(F.cosine_similarity(mean[one], mean[other], dim=0)) >= threshold:
                touched = [group for group in groups if one in group or other in group]
                groups = [group for group in groups if group not in touched] + [set().union(*touched)]
    first_of = {square: min(group) for group in groups for square in group}
    return torch.tensor([first_of[holder] for holder in flat]).view(num_frames, height, width)


@pytest.mark.parametrize("reference_form", [False, True])
def test_golden_squares(reference_form: bool) -> None:
    frame, frames = wave(1), wave(2)
    trees = trees_by_threshold(frame, 0.9, 0, reference_form)
    assert areas(trees) == [1] * 8 + [4, 4]
    last = torch.tensor([0.631207, -0.814495, -0.846612, -0.933858]).double()
    torch.testing.assert_close(means(trees, frame)[-1], last, atol=1e-6, rtol=0)
    assert len(areas(trees_by_threshold(frame, 0.95, 0, reference_form))) == 13

    trees = joined_by_threshold(trees_by_threshold(frames, 0.9, 0, reference_form), frames, 0.8)
    assert areas(trees) == [2] * 8 + [8, 8]
    first, last = ([1, 0.851459, 0.451330, -0.078232], [0.631207, -0.835556, -0.885946, -0.897986])
    expected = torch.tensor([first, last]).double()
    torch.testing.assert_close(means(trees, frames)[[0, -1]], expected, atol=1e-6, rtol=0)


def test_golden_squares_of_constant_frames() -> None:
    frames = torch.ones(1, 4, 14, 14, 3)
    trees = trees_by_threshold(frames, 0.8, 1)
    assert sorted(areas(trees)) == [4] * 4 + [8] * 24 + [16] * 36
    assert areas(joined_by_threshold(trees, frames, 0.6)) == [4 * area for area in areas(trees)[:16]]
    # Equal patches have a cosine of exactly 1.
    assert num_squares(trees_by_threshold(frames, 1.0, 1).held_by).tolist() == [64]


def test_parts_that_do_not_exist_are_tested_in_the_reference_form_alone() -> None:
    frame = torch.ones(1, 1, 3, 3, 2)
    frame[..., 0, 0, 1] = -1
    assert areas(trees_by_threshold(frame, 0.9)) == [1, 2, 2, 4]
    assert sorted(areas(trees_by_threshold(frame, 0.9, reference_form=True))) == [1, 1, 1, 1, 1, 4]


def test_all_links_are_followed_whatever_else_is_there() -> None:
    """The pairs that the reference leaves apart or joins, depending on a chain elsewhere."""
    squares = torch.arange(7).view(1, 1, 1, 7)
    pairs = torch.tensor([[[0, 2], [1, 2], [3, 4], [4, 5], [5, 6]]])
    linked = torch.tensor([[True, True, False, False, False]])
    assert components(squares, pairs, linked).flatten().tolist() == [0, 0, 0, 3, 4, 5, 6]
    assert components(squares, pairs, torch.ones_like(linked)).flatten().tolist() == [0, 0, 0, 3, 3, 3, 3]
    chain = torch.stack([torch.arange(63), torch.arange(1, 64)], dim=-1)[None, torch.randperm(63)]
    whole = components(torch.arange(64).view(1, 1, 1, 64), chain, torch.ones(1, 63).bool())
    assert (whole == 0).all()


@pytest.mark.parametrize(
    ("sides", "root_level"), [((4, 4), 0), ((7, 5), 0), ((3, 6), 0), ((14, 14), 1), ((2, 9), 0), ((1, 5), 0)]
)
def test_trees_equal_recursion_in_batches(sides: tuple[int, int], root_level: int) -> None:
    compared = 1 + 0.5 * torch.randn(2, 3, *sides, 4, dtype=torch.float64)
    for threshold in (0.5, 0.93, 0.99):
        trees = trees_by_threshold(compared, threshold, root_level)
        for video in range(2):
            for frame in range(3):
                squares = squares_by_recursion(compared[video, frame], threshold, root_level)
                expected = held_by(squares, *sides) + frame * sides[0] * sides[1]
                assert torch.equal(trees.held_by[video, frame], expected)
            joined = joined_by_threshold(trees, compared, threshold)
            one = Trees(trees.held_by[video : video + 1], None)
            assert torch.equal(joined.held_by[video], joined_by_sets(one, compared[video : video + 1], threshold))


def test_a_reference_square_is_the_mean_of_its_parts() -> None:
    """Parts that cover unequal areas count alike; joined squares do so too."""
    patches = torch.randn(1, 2, 3, 3, 4, dtype=torch.float64)
    trees = trees_by_threshold(patches, -2.0, 0, reference_form=True)
    assert areas(trees) == [1, 2, 2, 4] * 2
    # Seven rows are squares of 1, 2, 2, 2, and then of 3 and 4: the first one has four unequal parts.
    tall = torch.randn(1, 1, 7, 7, 4, dtype=torch.float64)
    trees = trees_by_threshold(tall, -2.0, 0, reference_form=True)
    first = tall[0, 0, :3, :3]
    parts = [first[0, 0], first[0, 1:].mean(dim=0), first[1:, 0].mean(dim=0), first[1:, 1:].flatten(0, 1).mean(dim=0)]
    found = square_means(trees, tall)[0, 0]
    torch.testing.assert_close(found[2, 2], torch.stack(parts).mean(dim=0))
    assert not torch.allclose(found[2, 2], first.flatten(0, 1).mean(dim=0))

    joined = joined_by_threshold(trees_by_threshold(patches, -2.0, 0, True), patches, -2.0)
    halves = patches[0, :, 1:, 1:].flatten(1, 2).mean(dim=1)
    torch.testing.assert_close(square_means(joined, patches)[0, 0, 2, 2], halves.mean(dim=0))


@pytest.mark.parametrize("sides", [(8, 8), (7, 9)])
def test_counts_are_met_from_below_by_the_finest_threshold(sides: tuple[int, int]) -> None:
    compared = 1 + 0.5 * torch.randn(2, 4, *sides, 4, dtype=torch.float64)
    roots = 4 * level_sides(*sides, 0)[-1][0] * level_sides(*sides, 0)[-1][1]
    for count in (roots, roots + 2, 121):
        trees = trees_by_count(compared, count)
        numbers = num_squares(trees.held_by)
        assert (numbers <= count).all() and (numbers > count - 3).all()
        for video in range(2):
            # A square is split or not as with some threshold: the next higher one would be too much.
            alone = compared[video : video + 1]
            found = [
                int(num_squares(trees_by_threshold(alone, t).held_by)) for t in torch.linspace(-1, 1.01, 100).tolist()
            ]
            assert max((number for number in found if number <= count), default=0) <= numbers[video]
            assert torch.equal(trees_by_count(alone, count).held_by[0], trees.held_by[video])

        for left in (count // 4 + 1, count // 2):
            joined = joined_by_count(trees, compared, left)
            joined_numbers = num_squares(joined.held_by)
            assert (joined_numbers <= max(left, roots // 4)).all()
            assert (joined_numbers >= min(left, roots // 4)).all()
            if left >= roots // 4:
                assert joined_numbers.tolist() == [left] * 2  # no two cosines are equal
            alone = joined_by_count(Trees(trees.held_by[1:2], None), compared[1:2], left)
            assert torch.equal(alone.held_by[0], joined.held_by[1])


def test_ties_split_the_first_squares_and_still_join_by_one_threshold() -> None:
    frames = torch.ones(2, 3, 8, 8, 2)
    trees = trees_by_count(frames, 20)
    assert num_squares(trees.held_by).tolist() == [18, 18]  # 12 roots of 16 patches, and two of them in four each
    assert areas(trees)[:5] == [4, 4, 4, 4, 4]
    assert num_squares(joined_by_count(trees, frames, 10).held_by).tolist() == [4, 4]
    with pytest.raises(ValueError, match="root_level: 3 is beyond the 3 levels of 8 x 8"):
        trees_by_threshold(frames, 0.9, 3)
