"""How variants are timed: in processes of their own, one at a time, and never silently without one that failed."""

import os
from pathlib import Path

import pytest

from benchmarks import measure as measuring
from benchmarks.measure import Case, Child, ChildError, measure, take_turns
from benchmarks.settings import Settings, configured, sections
from tests.benchmarks.ways import MIB, variant

SETTINGS = Settings(None, (), "cpu", 1, 3)


def test_variants_take_turns_and_only_one_works_at_a_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    calls = take_turns([variant("logged", name=name, log=str(log)) for name in "ABC"], SETTINGS)
    assert log.read_text().splitlines() == [f"{name} {what}" for name in "ABC" * 4 for what in ("begins", "ends")]
    assert [len(of_one) for of_one in calls] == [3, 3, 3]
    assert all(0.05 <= call.seconds for of_one in calls for call in of_one)


def test_a_row_has_medians_without_the_first_call_and_their_ratios() -> None:
    case = Case(
        "name",
        variant("seconds", values=[50, 1.0, 4.0, 2.0]),
        naive=variant("seconds", values=[50, 9.0, 7.0, 8.0]),
        limit=variant("seconds", values=[50, 1.5, 1.5, 1.0]),
    )
    row = measure(case, SETTINGS)
    assert (row.name, row.ours_s, row.naive_s, row.limit_s, row.peer_s) == ("name", 2.0, 8.0, 1.5, None)
    assert (row.ours_over_limit, row.naive_over_ours) == (0.75, 4.0)
    assert row.spread == {"ours": (1.0, 4.0), "naive": (7.0, 9.0), "limit": (1.0, 1.5)}


def test_memory_is_what_a_call_takes_on_top_of_what_was_held() -> None:
    """Of a variant that holds much and takes little, and of one the other way round."""
    peaks = [
        calls[-1].peak_bytes
        for calls in take_turns(
            [variant("memory", held=200, touched=50), variant("memory", held=10, touched=120)], SETTINGS
        )
    ]
    if None in peaks:
        pytest.skip("this system does not tell the most memory of a process")
    assert [round(peak / (10 * MIB)) for peak in peaks if peak is not None] == [5, 12]


def test_a_child_has_the_settings_and_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    settings = Settings("some.yaml", ("a=1", "b=2"), "cpu", 2, 1, "folder")
    with Child(variant("told", path=str(tmp_path / "told")), settings) as child:
        assert child.call().seconds == 1.0
    assert (tmp_path / "told").read_text() == f"{settings!r} 2 2"


@pytest.mark.parametrize(
    ("when", "message"),
    [("build", "cannot be built"), ("call", "broke in the second call"), ("killed", "ended with status -9")],
)
def test_a_child_that_dies_is_reported(when: str, message: str) -> None:
    with pytest.raises(ChildError, match=message) as raised:
        measure(Case("name", variant("seconds", values=[1.0] * 9), naive=variant("failing", when=when)), SETTINGS)
    assert "ways:failing" in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 1 + measuring.ERROR_LINES


def test_a_child_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with Child(variant("failing", when="never"), SETTINGS) as child:
        child.call()
        monkeypatch.setattr(measuring, "SECONDS_A_CALL", 0.2)
        with pytest.raises(ChildError, match="has not answered"):
            child.call()


def test_without_a_file_the_paper_s_model_is_configured() -> None:
    model, video, aggregation = sections(SETTINGS)
    assert (model.depth, model.width, video.num_frames, video.image_size) == (12, 768, 32, 224)
    assert (aggregation.reducer, aggregation.frames_per_block, aggregation.patches_per_block) == ("geometry", 1, 12)


def test_overrides_stand_over_a_file_and_over_none() -> None:
    overrides = ("aggregation.reducer=none", "video.num_frames=96", "train.batch_size=3")
    for config in (None, "configs/testa/retrieval/testa_f32.yaml"):
        found = configured(Settings(config, overrides, "cpu", 1, 1))
        assert (found.aggregation.reducer, found.aggregation.frames_per_block) == ("none", 0)
        assert (found.video.num_frames, found.train.batch_size) == (96, 3)
    with pytest.raises(ValueError, match="model.widht"):
        configured(Settings(None, ("model.widht=3",), "cpu", 1, 1))
