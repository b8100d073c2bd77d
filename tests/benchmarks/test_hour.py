"""The benchmark of an hour: its file is what it says, and its ways read and encode it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks import hour, hour_growth, plots
from benchmarks.child import build
from benchmarks.measure import Case
from benchmarks.settings import Settings
from configs.schema import AggregationConfig
from tests.benchmarks.test_encoder import SMALL

SETTINGS = Settings(
    None, (*SMALL[:4], "video.image_size=32", "video.num_frames=25", "aggregation.patches_per_block=3"), "cpu", 1, 1
)


@pytest.fixture(scope="module", autouse=True)
def small_file() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("SECONDS_ENCODED", 10), ("WIDTH", 160), ("HEIGHT", 90)):
            patch.setattr(hour, name, value)
        yield


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return hour.cases(SETTINGS)


def test_the_file_lasts_as_long_as_it_should_and_has_regular_key_frames(cases: list[Case]) -> None:
    with av.open(cases[0].ours.arguments["path"]) as container:
        frames = list(container.decode(container.streams.video[0]))
    times = np.array([frame.time for frame in frames])
    np.testing.assert_allclose(times - times[0], np.arange(25 * 25) / 25, atol=1e-3)
    assert [index for index, frame in enumerate(frames) if frame.key_frame] == [0, 250, 500]
    # The second ten seconds show what the first do.
    first, second = (frames[index].to_ndarray(format="rgb24") for index in (30, 280))
    assert np.array_equal(first, second)


def test_it_runs_from_file_to_embedding(cases: list[Case]) -> None:
    assert [case.name for case in cases] == [
        f"hour {dtype}, 25 frames, {aggregation}"
        for aggregation in ("geometry R_T 1 R_S 3", "no aggregation")
        for dtype in ("bf16", "fp32")
    ]
    for case in cases:
        assert case.is_long and case.limit is not None
        assert build(case.ours, SETTINGS)() is None
        assert build(case.limit, SETTINGS)() > 0


def test_the_hour_is_the_default_and_any_size_can_be_asked_for() -> None:
    _, video, aggregation = hour.sections(hour.of_an_hour(Settings(None, (), "cpu", 1, 1)))
    assert (video.num_frames, video.working_memory) == (3600, 0.5)
    assert aggregation == AggregationConfig(reducer="geometry", frames_per_block=225, patches_per_block=12)


@pytest.mark.usefixtures("in_this_process")
def test_growth_has_ours_and_the_references_way(tmp_path: Path) -> None:
    settings = replace(SETTINGS, overrides=(*SETTINGS.overrides, "video.working_memory=0.0001"))
    rows = hour_growth.growth(settings, tmp_path / "hour_frames.json", frames=(17, 32), reference_frames=(8,))
    assert [(row["aggregation"], row["frames"]) for row in rows] == [
        ("ours, merging", 17),
        ("ours, merging", 32),
        ("ours, no aggregation", 17),
        ("ours, no aggregation", 32),
        ("the reference's way", 8),
    ]
    assert all(row["seconds"] > 0 for row in rows)


def reference_rows(frames: Sequence[int]) -> list[dict]:
    peaks = [3.0 * count + 2.0 * count**2 for count in frames]
    named = {"aggregation": hour_growth.REFERENCE, "seconds": 1.0}
    return [{**named, "frames": count, "peak_bytes": peak} for count, peak in zip(frames, peaks, strict=True)]


def test_the_forecast_follows_a_parabola_until_memory_ends() -> None:
    ahead = hour_growth.forecast(reference_rows((10, 20, 40)), limit_bytes=3 * 100 + 2 * 100**2 + 1)
    assert ahead is not None
    frames, peaks = ahead
    assert (frames[0], frames[-1]) == (40, 101)  # 100 frames just fit
    assert peaks == pytest.approx([3 * count + 2 * count**2 for count in frames])


@pytest.mark.parametrize("frames", [(), (10,), (100, 200, 400)])
def test_there_is_no_forecast_of_what_is_not_known_or_is_measured(frames: tuple[int, ...]) -> None:
    assert hour_growth.forecast(reference_rows(frames), limit_bytes=20_000) is None


def test_the_figure_shows_where_memory_ends() -> None:
    gib = 2**30
    rows = [{**row, "peak_bytes": row["peak_bytes"] * 1e5} for row in reference_rows((32, 96, 256))]
    rows += [{"aggregation": "ours", "frames": count, "seconds": 1.0, "peak_bytes": gib} for count in (32, 3600)]
    figure = plots.draw_hour(rows)
    (forecast,) = [line for line in figure.axes[1].lines if str(line.get_label()).startswith("forecast: 24 GiB at")]
    assert forecast.get_ydata()[-1] == pytest.approx(24, rel=0.01)
    assert plots.draw_hour(rows[-2:]).axes[1].lines  # without a reference, ours alone
