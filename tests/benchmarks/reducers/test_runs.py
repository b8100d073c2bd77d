"""Schedules by time, and the runs of weights that are given."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.reducers import in_turn, runs
from benchmarks.reducers.cost import key_of
from benchmarks.reducers.recipes import layered, overrides_of
from benchmarks.reducers.runs import Seed, matched_reducers
from benchmarks.reducers.settings import Comparison, FineTuned, load_comparison
from configs.load import load
from configs.schema import RetrievalConfig
from engine.checkpoint_folder import read_json

ROOT = Path(__file__).resolve().parents[3]
FLASHES = ROOT / "configs" / "comparison" / "flashes_testa_joint.yaml"
FEW = [
    "reducers=[{name: none, matched_by: nothing}, {name: fewer frames, matched_by: num_frames}, "
    "{name: lower resolution, matched_by: image_size}, "
    "{name: tome, matched_by: early, aggregation: {reducer: tome}}]",
    "fine_tuned.reducers=[tome]",
    "findings=[]",
]
"""The file's first reducers: to match all of them takes a while."""


def test_the_schedule_of_the_nearest_time_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here time is all GMACs, and a constant that no reducer saves: so more has to leave than at half of the GMACs."""
    monkeypatch.chdir(ROOT)

    def times(schedules: list, config: object, path: Path) -> dict:
        assert path == tmp_path and schedules[0].name == "none"
        return {key_of(matched): {"seconds": 0.02 + matched.cost.gmacs} for matched in schedules}

    monkeypatch.setattr(runs, "times", times)
    found = matched_reducers(load_comparison(FLASHES, FEW), tmp_path)
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

    comparison = load_comparison(FLASHES, [*FEW, "prices=[gmacs]", "seeds=[0]", "pretrain.config=null"])
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


BUDGETS = FLASHES.with_name("flashes_budgets.yaml")
DRAWN = "{name: drawn, matched_by: given, aggregation: {reducer: run_length, keep: 0.5, train_keep: [0.1, 1.0]}}"
LOW = "{name: low, matched_by: given, weights_of: drawn, aggregation: {reducer: run_length, keep: 0.2}}"


def budgets(*rows: str, more: tuple[str, ...] = ()) -> Comparison:
    none = "{name: none, matched_by: nothing}"
    own = [f"reducers=[{', '.join((none, *rows))}]", "fine_tuned.reducers=[drawn]", "findings=[]"]
    return load_comparison(BUDGETS, list(layered(own, more)))


def test_budgets_are_compared_by_the_recipe_of_all_reducers(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is trained for one comparison serves the other, and every budget has both ways to be trained."""
    monkeypatch.chdir(ROOT)
    comparison, other = load_comparison(BUDGETS, []), load_comparison(FLASHES, [])
    for name in ("data", "overrides", "pretrain", "retrieval", "seeds", "encoder"):
        assert getattr(comparison, name) == getattr(other, name)
    keeps = [one.aggregation.keep for one in comparison.reducers if one.name.startswith("drawn")]
    assert sorted(map(float, filter(None, keeps))) == [0.1, 0.2, 0.35, 0.527, 0.75, 1.0]
    assert all(one.name.endswith(f" {one.aggregation.keep}") for one in comparison.reducers if one.name != "none")


def test_weights_are_trained_before_the_rows_that_take_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order rows come. Off the shelf they would be what others are there, and are left out."""
    monkeypatch.chdir(ROOT)
    fixed = "{name: fixed, matched_by: given, aggregation: {reducer: run_length, keep: 0.5}}"
    by_knob = "{name: any, matched_by: keep, weights_of: drawn, aggregation: {reducer: run_length}}"
    for rows in ((LOW, DRAWN, fixed, by_knob), (fixed, by_knob, DRAWN, LOW)):
        comparison = budgets(*rows, more=("prices=[gmacs]",))
        seed = Seed(comparison, tmp_path, 0, matched_reducers(comparison))
        all_runs = seed.runs_of("retrieval", {})
        names = [str(run.folder.relative_to(seed.folder)).removeprefix("retrieval/") for run in all_runs]
        assert names[:3] == ["pretrain_joint", "fine_tuned/none", "fine_tuned/drawn"]
        assert sorted(names[3:]) == ["fine_tuned/any", "fine_tuned/low", "off_the_shelf/fixed"]
        words = all_runs[names.index("fine_tuned/low")].words
        assert words[:2] == ("train_retrieval.py", "--evaluate") and "aggregation.train_keep=null" in words
        assert f"checkpoint={seed.folder / 'retrieval/fine_tuned/drawn/checkpoint_best'}" in words
        trained, low = (seed.reducers[name] for name in ("drawn", "low"))
        assert "aggregation.train_keep=[0.1,1.0]" in trained.overrides
        assert key_of(trained) == key_of(low).replace("keep=0.2", "keep=0.5")


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        ([LOW], "fine_tuned.reducers=null", "weights_of drawn: no row that is fine-tuned .*; there is none"),
        ([LOW.replace("of: drawn", "of: none"), DRAWN], "", "weights_of none: no row .*; there is drawn"),
        ([LOW, DRAWN, LOW.replace("low", "x").replace("drawn", "low")], "", "weights_of low: no row .* there is drawn"),
        (
            [LOW, DRAWN.replace(", train_keep: [0.1, 1.0]", "")],
            "fine_tuned.reducers=[none]",
            "weights_of drawn: no row",
        ),
        ([DRAWN], "fine_tuned.reducers=[none]", "drawn: train_keep has no effect off the shelf; have it fine_tuned"),
        ([LOW.replace("0.2", "0.2, train_keep: [0.1, 1.0]"), DRAWN], "", "no effect on a row with weights_of"),
        (
            ["{name: again, matched_by: nothing, weights_of: none}"],
            "",
            "weights_of: does not go with matched_by nothing",
        ),
        (
            [LOW, DRAWN],
            "findings=[{claim: no, better: low, worse: none, stage: off_the_shelf}]",
            "low has no row off the shelf",
        ),
    ],
)
def test_weights_of_no_training_are_refused(rows: list[str], more: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        budgets(*rows, more=(more,) if more else ())


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
