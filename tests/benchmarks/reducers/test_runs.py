"""Schedules by time, and the runs of weights that are given."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.reducers import in_turn, runs
from benchmarks.reducers.cost import key_of
from benchmarks.reducers.runs import Seed, matched_reducers
from benchmarks.reducers.settings import FineTuned, layered, load_comparison, overrides_of
from configs.load import load
from configs.schema import RetrievalConfig
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

    comparison = load_comparison(FLASHES, ["prices=[gmacs]", "seeds=[0]", "pretrain.config=null", "findings=[]"])
    comparison = replace(comparison, weights="published.pth", stages=("off_the_shelf",), fine_tuned=FineTuned())
    seed = Seed(comparison, tmp_path, 0, matched_reducers(comparison))
    all_runs = seed.runs_of("retrieval", {})
    assert [run.folder.name for run in all_runs][:3] == ["none", "fewer_frames", "lower_resolution"]
    for run in all_runs:
        assert run.words[:4] == ("train_retrieval.py", "--evaluate", "--config", "configs/debug/stories.yaml")
        assert "checkpoint=published.pth" in run.words
    assert "aggregation.reducer=none" in all_runs[0].words and "aggregation.reducer=tome" in all_runs[3].words


def test_only_the_chosen_reducers_are_fine_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are evaluated off the shelf; what takes nothing away is trained once, and the others take its weights."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        runs, "times", lambda schedules, *_: {key_of(one): {"seconds": one.cost.gmacs} for one in schedules}
    )
    rows = "{name: none, matched_by: nothing}, {name: tome, matched_by: early, aggregation: {reducer: tome}}, "
    rows += "{name: fewer frames, matched_by: num_frames}, "
    rows += "{name: as told, matched_by: given, aggregation: {reducer: tome, tokens_per_block: 8}}"
    settings = [f"reducers=[{rows}]", "stages=[off_the_shelf, fine_tuned]", "findings=[]"]
    chosen = "fine_tuned={reducers: [tome, as told], prices: [milliseconds]}"

    comparison = load_comparison(FLASHES, [*settings, chosen])
    seed = Seed(comparison, tmp_path, 0, matched_reducers(comparison, tmp_path))
    pretraining, first, *others = (run.folder.relative_to(seed.folder) for run in seed.runs_of("retrieval", {}))
    assert pretraining == Path("pretrain_joint") and first == Path("retrieval/fine_tuned/none")
    all_rows = ("tome", "tome_by_time", "fewer_frames", "fewer_frames_by_time", "as_told")
    expected = {Path("retrieval/off_the_shelf") / name for name in all_rows}
    trained = {Path("retrieval/fine_tuned") / name for name in ("tome_by_time", "as_told")}
    assert set(others) == expected | trained and len(others) == 7

    finding = "findings=[{claim: no, better: fewer frames, worse: none, stage: fine_tuned}]"
    for override, said in (
        (finding, "no: fewer frames is not fine-tuned; add it to fine_tuned"),
        ("fine_tuned={reducers: [toem]}", "fine_tuned.reducers: toem is none of the reducers none, tome"),
        ("stages=[off_the_shelf]", "add fine_tuned to stages"),
    ):
        with pytest.raises(ValueError, match=said):
            load_comparison(FLASHES, list(layered([*settings, chosen], [override])))


def test_a_recipes_own_schedule_does_not_survive_beside_a_matched_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """This recipe merges patches; saliency could, with divided attention, and here takes joint tokens."""
    monkeypatch.chdir(ROOT)
    rows = "{name: none, matched_by: nothing}, {name: saliency, matched_by: early, aggregation: {reducer: saliency}}"
    only = [f"reducers=[{rows}]", "fine_tuned.reducers=[saliency]", "findings=[]"]
    comparison = load_comparison(FLASHES, ["prices=[gmacs]", *only])
    recipe = Path(str(comparison.retrieval.config))
    assert load(RetrievalConfig, recipe, []).aggregation.patches_per_block
    matched = matched_reducers(comparison)["saliency"]
    trained = load(RetrievalConfig, recipe, list(layered(overrides_of(comparison, "retrieval"), matched.overrides)))
    assert trained.aggregation == matched.aggregation


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


def test_a_run_from_before_a_setting_was_there_counts(tmp_path: Path) -> None:
    words = ("train_retrieval.py", "aggregation.reducer=run_length", "aggregation.keep=0.5")
    in_turn.write_done(tmp_path, words, 1.0)
    assert runs.Run(tmp_path, (*words, "aggregation.train_keep=null")).is_done
    for other in (words[:2], (*words[:2], "aggregation.keep=0.4"), (*words, "aggregation.train_keep=[0.1,1.0]")):
        with pytest.raises(ValueError, match="holds a run with other settings"):
            _ = runs.Run(tmp_path, other).is_done
