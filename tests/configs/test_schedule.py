"""Schedules of token aggregation against counting by hand and by brute force."""

import itertools

import pytest

from configs.schedule import (
    blocks_from_amount,
    blocks_from_keep,
    capacity,
    check_capacity,
    held_schedule,
    keep_per_axis,
)


def test_an_amount_is_a_number_for_all_blocks_or_one_a_block() -> None:
    assert blocks_from_amount(3, 4, "a.b") == (3, 3, 3, 3)
    assert blocks_from_amount((0, 1, 2), 3, "a.b") == (0, 1, 2)
    with pytest.raises(ValueError, match="^a.b: 2 numbers for 3 blocks; give one a block, or a single number$"):
        blocks_from_amount((1, 2), 3, "a.b")


def test_capacity_is_what_alternating_sets_can_match() -> None:
    """Sources are every second token; a protected first token is kept out, so frames lose one less when even."""
    for tokens in range(1, 40):
        assert capacity(tokens, protected=0) == len(range(1, tokens, 2))  # patches: the odd ones
        assert capacity(tokens, protected=1) == len(range(2, tokens, 2))  # frames: the even ones but the first
    assert capacity(0, protected=1) == 0


def test_keep_leaves_the_share_and_spreads_it_evenly() -> None:
    assert blocks_from_keep(0.25, 196, 0, 12, "k") == (12, 12, 12, 13, 12, 12, 12, 13, 12, 12, 12, 13)
    assert blocks_from_keep(1.0, 196, 0, 12, "k") == (0,) * 12
    for tokens, depth, share in itertools.product((16, 49, 196), (3, 12), (0.3, 0.5, 0.77, 0.9)):
        schedule = blocks_from_keep(share, tokens, 0, depth, "k")
        assert tokens - sum(schedule) == round(share * tokens)
        assert max(schedule) - min(schedule) <= 1


def test_keep_that_a_few_blocks_cannot_reach_is_refused() -> None:
    assert blocks_from_keep(0.5, 8, 0, 1, "k") == (4,)
    with pytest.raises(ValueError, match="^k: 5 of 8 tokens cannot leave evenly in 1 blocks, since at most half"):
        blocks_from_keep(0.4, 8, 0, 1, "k")
    with pytest.raises(ValueError, match="^k: 4 of 8 tokens"):  # one frame is protected: 3 can leave
        blocks_from_keep(0.5, 8, 1, 1, "k")


def test_axes_that_keep_equal_shares_keep_the_whole_share_together() -> None:
    assert keep_per_axis(0.25, 2) == pytest.approx(0.5)
    assert keep_per_axis(0.25, 1) == pytest.approx(0.25)


def test_a_held_schedule_is_capped_block_by_block() -> None:
    assert held_schedule((12,) * 3, 196, 0) == (12, 12, 12)
    assert held_schedule((3, 3, 3), 8, 0) == (3, 2, 1)  # 8 -> 5 -> 3 -> 2
    assert held_schedule((1, 1, 1, 1), 4, 1) == (1, 1, 0, 0)  # 4 -> 3 -> 2, of which one is protected


def test_a_schedule_passes_the_check_exactly_if_it_is_held_as_it_is() -> None:
    for schedule in itertools.product(range(4), repeat=3):
        for tokens, protected in itertools.product(range(1, 9), (0, 1)):
            if held_schedule(schedule, tokens, protected) == schedule:
                check_capacity(schedule, tokens, protected, "a.b", "frames")
            else:
                with pytest.raises(ValueError, match="^a.b: block"):
                    check_capacity(schedule, tokens, protected, "a.b", "frames")


def test_the_check_names_block_and_numbers() -> None:
    with pytest.raises(ValueError) as caught:
        check_capacity((1, 2), 4, 1, "aggregation.frames_per_block", "frames")
    assert str(caught.value) == (
        "aggregation.frames_per_block: block 1 is to lose 2 of the 3 frames that reach it; at most 1 can leave in one "
        "block. Lower it, or give the model more to begin with"
    )
