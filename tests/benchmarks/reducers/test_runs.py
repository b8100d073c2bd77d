"""Schedules by time, and the runs of weights that are given."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.reducers import in_turn, runs
from benchmarks.reducers.cost import key_of
from benchmarks.reducers.runs import Seed, matched_reducers
from benchmarks.reducers.settings import load_comparison
from engine.checkpoint_folder import read_json

ROOT = Path(__file__).resolve().parents[3]
FLASHES = ROOT / "configs" / "comparison" / "flashes_testa_joint.yaml"


def test_the_schedule_of_the_nearest_time_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here time is all GMACs, and a constant that no reducer saves: so more has to leave than at half of the GMACs."""
    monkeypatch.chdir(ROOT)

    def times(schedules: list, config: object, path: Path) -> dict:
        assert path == tmp_path and schedules[0].name == "none"
        return {key_of(matched): {"seconds": 0.02 + matched.cost.gmacs} for matched in schedules}

    monkeypatch.setattr(runs, "times", times)
    found = matched_reducers(load_comparison(FLASHES, []), tmp_path)
    whole = found["none"].cost.gmacs
    by_cost, by_time = found["fewer frames"], found["fewer frames by time"]
    assert by_time.cost.gmacs < by_cost.cost.gmacs and abs(by_cost.cost.gmacs / whole - 0.5) < 0.03
    assert abs((0.02 + by_time.cost.gmacs) / (0.02 + whole) - 0.5) < 0.03
    assert by_time.name == "fewer frames by time" and list(found)[:3] == [
        "none",
        "fewer frames",
        "fewer frames by time",
    ]


def test_given_weights_are_evaluated_and_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    overrides = ["own_data=true", "data={}", "weights=published.pth", "pretrain={}", "seeds=[0]", "prices=[gmacs]"]
    with pytest.raises(ValueError, match="own_data: leave out data"):
        load_comparison(FLASHES, overrides)

    comparison = replace(load_comparison(FLASHES, ["prices=[gmacs]", "seeds=[0]", "pretrain.config=null"]))
    comparison = replace(comparison, weights="published.pth", findings=())
    seed = Seed(comparison, tmp_path, 0, matched_reducers(comparison))
    all_runs = seed.runs_of("retrieval", {})
    assert [run.folder.name for run in all_runs][:3] == ["none", "fewer_frames", "lower_resolution"]
    for run in all_runs:
        assert run.words[:4] == ("train_retrieval.py", "--evaluate", "--config", "configs/debug/stories.yaml")
        assert "checkpoint=published.pth" in run.words
    assert "aggregation.reducer=none" in all_runs[0].words and "aggregation.reducer=tome" in all_runs[3].words


def test_runs_of_one_process_are_each_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def run_here(words: list[str]) -> None:
        given.append(words)
        if words == ["bad"]:
            raise SystemExit(2)

    monkeypatch.setattr(in_turn, "run_here", run_here)
    asked = [{"folder": str(tmp_path / name), "words": [name]} for name in ("good", "bad", "never")]
    for run in asked:
        Path(run["folder"]).mkdir()
    with pytest.raises(SystemExit):
        in_turn.main(asked)
    assert given == [["good"], ["bad"]]
    assert read_json(tmp_path / "good" / "done.json")["words"] == ["good"]
    assert not (tmp_path / "bad" / "done.json").exists()
