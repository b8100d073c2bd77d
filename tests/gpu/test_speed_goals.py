"""The goals of speed: that the benchmark's ways can be had, and what is made of their times."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from benchmarks.child import build
from benchmarks.measure import Call, Case, Row, Variant
from benchmarks.settings import Settings, sections
from models.testa.cost import count
from tests.gpu.checks import speed
from tests.gpu.checks.sizes import SIZES

CPU, TINY = torch.device("cpu"), SIZES["tiny"]
MERGING = ("aggregation.frames_per_block=2",)
SECONDS = {"no aggregation": 8.0, "aggregation": 5.0, "aggregation, compiled": 4.0}
LIMITS = {"no aggregation": 3.0, "aggregation": 2.5}


def test_the_encoder_is_held_against_its_limit_and_aggregation_against_its_saving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Variant, Settings]] = []

    def take_turns(variants: Sequence[Variant], settings: Settings) -> list[list[Call]]:
        asked.extend((variant, settings) for variant in variants)
        return [[Call(factor * seconds_of(variant), None) for factor in (0.1, 1, 9)] for variant in variants]

    def seconds_of(variant: Variant) -> float:
        name = "aggregation" if variant.arguments["aggregation"]["reducer"] == "geometry" else "no aggregation"
        if variant.build.endswith(":limit"):
            return LIMITS[name]
        return SECONDS[f"{name}, compiled" if variant.arguments.get("compiled") else name]

    monkeypatch.setattr(speed, "take_turns", take_turns)
    finding = speed.encoder(CPU, TINY, frames=8, batch=2, merging=MERGING, compiled=True)
    settings = asked[0][1]
    assert (settings.device, settings.config) == ("cpu", None)
    model, video, aggregation = sections(settings)
    assert (video.num_frames, aggregation.frames_per_block, model.width) == (8, 2, 64)
    saving = count(model, video, speed.AggregationConfig()).gmacs / count(model, video, aggregation).gmacs
    assert {reading.what: reading.value for reading in finding.readings} == {
        "over limit, no aggregation": 3 / 8,
        "over limit, aggregation": 2.5 / 5,
        "over limit, aggregation, compiled": 2.5 / 4,
        "speed-up over saving": pytest.approx(8 / 5 / saving),
    }
    assert [reading.holds for reading in finding.readings][:3] == [False, True, True]
    assert finding.note.startswith("no aggregation 0.2 videos/s, aggregation 0.4 videos/s")
    # They are what the benchmark has: each can be built and run as it is asked for.
    assert len(asked) == 5
    for variant, settings in asked:
        if not variant.arguments.get("compiled"):
            seconds = build(variant, settings)()
            assert (seconds is not None) == variant.build.endswith(":limit")


@pytest.mark.parametrize(("ours_bytes", "holds"), [(10, [True, True]), (20, [True, False]), (None, [True])])
def test_the_step_is_held_against_the_references(
    monkeypatch: pytest.MonkeyPatch, ours_bytes: int | None, holds: list[bool]
) -> None:
    asked: list[Case] = []

    def measure(case: Case, settings: Settings) -> Row:
        asked.append(case)
        times: dict[str, Any] = {"limit_s": None, "peer_s": None, "ours_over_limit": None, "spread": {}}
        return Row(case.name, ours_s=1.0, naive_s=2.5, naive_over_ours=2.5, peak_bytes_ours=ours_bytes,
                   peak_bytes_naive=30, **times)  # fmt: skip

    monkeypatch.setattr(speed, "measure", measure)
    finding = speed.step(CPU, TINY, batch=3)
    assert [reading.holds for reading in finding.readings] == holds
    (case,) = asked
    assert case.naive is not None and case.ours.arguments == {"precision": "bf16", "activation_checkpointing": "none"}
    assert "bf16" in case.name and "batch 3" in case.name


def test_an_hour_is_held_against_seconds_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Variant, Settings]] = []

    def take_turns(variants: Sequence[Variant], settings: Settings) -> list[list[Call]]:
        asked.extend((variant, settings) for variant in variants)
        return [[Call(1.4, 3 * 2**30), Call(9.0, 25 * 2**30), Call(1.2, 5)]]

    monkeypatch.setattr(speed, "take_turns", take_turns)
    finding = speed.hour(CPU, TINY, frames=9)
    assert [(reading.what, reading.value, reading.holds) for reading in finding.readings] == [
        ("seconds", 1.4, True),
        ("GiB", 25, False),
    ]
    ((variant, settings),) = asked
    assert sections(settings)[1].num_frames == 9
    assert build(variant, settings)() is None
