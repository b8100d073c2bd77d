"""Figures and the film: what is drawn where, of tiny traces."""

import numpy as np
import pytest
import torch

from inference.pictures.figures import (
    COLUMNS,
    draw_blocks,
    draw_end,
    draw_grounding,
    draw_similarities,
    evenly,
    film,
)
from inference.pictures.trace import Trace, trace_video
from tests.models.tiny import DEPTH, FRAMES, IMAGE, NUM_PATCHES, PAIRS, encoder


def traced(pair: str = "divided-geometry", frames: int = FRAMES) -> Trace:
    generator = torch.Generator().manual_seed(0)
    clip = torch.randint(0, 256, (frames, 3, IMAGE, IMAGE), generator=generator, dtype=torch.uint8)
    return trace_video(encoder(*PAIRS[pair]), clip)


def test_chosen_frames_reach_from_the_first_to_the_last() -> None:
    assert evenly(3, 8) == [0, 1, 2]
    assert evenly(20, 8) == sorted(set(evenly(20, 8))) and len(evenly(20, 8)) == 8
    assert (evenly(20, 8)[0], evenly(20, 8)[-1]) == (0, 19)


@pytest.mark.parametrize("pair", ["divided-geometry", "divided-prune", "joint-tome"])
def test_rows_are_blocks_and_say_how_many_tokens_are_left(pair: str) -> None:
    trace = traced(pair)
    panel = draw_blocks(trace, "a title").axes[0]
    labels = [label.get_text() for label in panel.get_yticklabels()]
    left = [len(set(held[held >= 0].tolist())) for held in trace.blocks]
    assert labels == ["input", *(f"block {block}\n{count} tokens" for block, count in enumerate(left, start=1))]
    assert [text.get_text() for text in panel.texts] == [str(number) for number in range(1, FRAMES + 1)]


def test_the_end_shows_every_frame_over_its_regions() -> None:
    trace = traced(frames=2 * COLUMNS + 3)
    figure = draw_end(trace, "a title")
    panel = figure.axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["frames", "merged"] * 3
    assert [text.get_text() for text in panel.texts] == [str(number) for number in range(1, 2 * COLUMNS + 4)]
    # Nothing is rescaled: a pixel of a tile is a pixel of the picture.
    shown = panel.get_window_extent()
    assert panel.images[0].get_array().shape[:2] == (round(shown.height), round(shown.width))


def test_grounding_has_the_scale_of_its_similarities() -> None:
    trace = traced()
    similarity = np.linspace(-0.3, 0.7, trace.tokens.shape[0])[trace.origins]
    figure = draw_grounding(trace, similarity, "a title")
    assert figure.axes[1].get_ylim() == pytest.approx((similarity.min(), 0.7))


@pytest.mark.parametrize(("pair", "kinds"), [("divided-geometry", 4), ("divided-prune", 2), ("joint-tome", 2)])
def test_bars_are_the_similarities(pair: str, kinds: int) -> None:
    trace = traced(pair)
    figure = draw_similarities(trace, "win_$1_vs_$1000.mp4")  # no formula
    figure.canvas.draw()
    panel = figure.axes[0]
    assert len(panel.containers) == kinds
    drawn = sorted(bar.get_height() for bars in panel.containers for bar in bars)
    wanted = [value for one in trace.similarities for value in (one.merged, one.others) if value is not None]
    assert drawn == pytest.approx(sorted(wanted)) and len(drawn) == kinds * DEPTH
    for bars in panel.containers:  # over the number of its block
        assert [round(bar.get_x() + bar.get_width() / 2) for bar in bars] == [1, 2]


def test_a_film_has_every_frame_and_even_sides() -> None:
    trace = traced()
    alone = film(trace, None)
    heated = film(trace, np.arange(FRAMES * NUM_PATCHES, dtype=float).reshape(FRAMES, NUM_PATCHES))
    assert len(alone) == len(heated) == FRAMES and alone.dtype == np.uint8
    assert all(side % 2 == 0 for side in (*alone.shape[1:3], *heated.shape[1:3]))
    assert heated.shape[2] * 2 == alone.shape[2] * 3
    assert np.array_equal(heated[:, :, : alone.shape[2]], alone)
