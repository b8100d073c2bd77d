"""Time positions of longer clips: against plain loops, on loading and at inference, and where they are refused."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from configs.model import TimeTable
from configs.schema import AggregationConfig, StoaConfig, TestaConfig, UMTConfig, VideoConfig
from models.checkpoints.load import formats_for, load_into
from models.parts.time_table import COARSE, stretch_times
from models.testa.weights.formats import FORMATS as TESTA
from models.tvts.formats import FORMATS as TVTS
from models.tvts.model import Tvts
from models.tvts.weights import to_published
from tests.models.testa.test_long_video import RAGGED
from tests.models.testa.weights.test_load import stored
from tests.models.tiny import FRAMES, VIDEO, clips, vision_language
from tests.models.tvts.tiny import SIZES, make_model, make_video

WAYS: tuple[TimeTable, ...] = get_args(TimeTable)


def between(rows: list[Tensor], count: int) -> list[Tensor]:
    """Positions at equal steps from the first row to the last."""
    found = []
    for index in range(count):
        place = index * (len(rows) - 1) / (count - 1) if count > 1 else 0.0
        low = min(int(place), len(rows) - 2)
        found.append(rows[low] * (1 - (place - low)) + rows[low + 1] * (place - low))
    return found


def by_loop(rows: list[Tensor], count: int, way: TimeTable) -> list[Tensor]:
    if way == "nearest":
        return [rows[frame * len(rows) // count] for frame in range(count)]
    if way == "linear":
        return between(rows, count)
    if count <= len(rows):
        return rows[:count]
    coarse = between(rows, -(-count // len(rows)))
    mean = sum(coarse, torch.zeros(())) / len(coarse)
    return [rows[frame % len(rows)] + COARSE * (coarse[frame // len(rows)] - mean) for frame in range(count)]


@pytest.mark.parametrize("frames", [1, 3, 7, 8, 10, 29, 70])
@pytest.mark.parametrize("way", WAYS)
def test_each_way_equals_a_plain_loop(way: TimeTable, frames: int) -> None:
    table = torch.randn(1, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.stack(by_loop(list(table[0]), frames, way))[None]
    found = stretch_times(table, frames, way)
    torch.testing.assert_close(found, expected, rtol=0, atol=0 if way == "nearest" else 1e-5)
    if frames == 7:
        assert found is table


def test_an_hour_has_a_position_for_every_frame_but_to_the_nearest() -> None:
    table = torch.randn(1, 32, 16, generator=torch.Generator().manual_seed(0))
    distinct = {way: len(stretch_times(table, 3600, way)[0].unique(dim=0)) for way in WAYS}
    assert distinct == {"nearest": 32, "linear": 3600, "windows": 3600}

    # Neighbours are as far from each other as in training with windows alone.
    steps = {way: stretch_times(table, 3600, way)[0].diff(dim=0).norm(dim=1).median() for way in WAYS}
    assert steps["nearest"] == 0
    assert steps["linear"] < 0.02 * steps["windows"]
    assert stretch_times(table.bfloat16(), 3600, "linear").dtype == torch.bfloat16


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_testa_stretches_on_loading_as_at_inference(way: TimeTable) -> None:
    video, longer = replace(VIDEO, time_table=way), 2 * FRAMES + 3
    source = vision_language(video=video)
    model = vision_language(video=replace(video, num_frames=longer), seed=1)
    report = load_into(model, stored(source), "here", formats=formats_for(TESTA, video))
    assert report.notes == [f"visual_encoder: time_embed: {FRAMES} -> {longer} frames, {way}"]

    given, own = source.visual_encoder, model.visual_encoder
    expected = torch.stack(by_loop(list(given.time_embed[0]), longer, way))[None]
    torch.testing.assert_close(own.time_embed.data, expected, rtol=0, atol=1e-6)
    pixels = clips(1, longer)
    assert torch.equal(own(pixels).tokens, given(pixels).tokens)

    given.working_memory = RAGGED
    torch.testing.assert_close(given(pixels).tokens, own(pixels).tokens, rtol=0, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_tvts_stretches_on_loading_as_at_inference(way: TimeTable) -> None:
    source, longer = make_model(), 15
    source.video_model.time_table = way
    model = Tvts(replace(SIZES, num_frames=longer), sorting=True, time_table=way)
    published = {f"module.{name}": tensor for name, tensor in to_published(source.state_dict()).items()}
    load_into(model, published, "here", formats=formats_for(TVTS, VideoConfig(time_table=way)))

    expected = by_loop(list(source.video_model.temporal_embedding), longer, way)
    torch.testing.assert_close(model.video_model.temporal_embedding.data, torch.stack(expected), rtol=0, atol=1e-6)
    pixels = make_video(frames=longer)
    assert torch.equal(model.video_model(pixels).tokens, source.video_model(pixels).tokens)

    # A shorter clip takes the first positions, as published.
    assert torch.equal(source.video_model._time(4), source.video_model.temporal_embedding[:4])


def test_other_encoders_refuse_it() -> None:
    video, none = VideoConfig(time_table="windows"), AggregationConfig()
    for model in (TestaConfig(attention="joint"), TestaConfig(attention="space"), UMTConfig(), StoaConfig()):
        with pytest.raises(ValueError, match=r"video.time_table: windows has no effect with .*; leave it out"):
            model.check(video, none)
    TestaConfig().check(video, none)
