"""The benchmark of an hour: its file is what it says, and its ways read and encode it."""

from collections.abc import Iterator

import av
import numpy as np
import pytest

from benchmarks import hour
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
        f"hour {dtype}, 25 frames, geometry R_T 1 R_S 3" for dtype in ("bf16", "fp32")
    ]
    for case in cases:
        assert case.is_long and case.limit is not None
        assert build(case.ours, SETTINGS)() is None
        assert build(case.limit, SETTINGS)() > 0


def test_the_hour_is_the_default_and_any_size_can_be_asked_for() -> None:
    _, video, aggregation = hour.sections(hour.of_an_hour(Settings(None, (), "cpu", 1, 1)))
    assert (video.num_frames, video.working_memory) == (3600, 0.5)
    assert aggregation == AggregationConfig(reducer="geometry", frames_per_block=225, patches_per_block=12)
