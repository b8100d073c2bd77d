"""The whole command in miniature: two reducers, one seed, few videos, the public entry scripts."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from benchmarks.reducers import __main__ as compare_reducers, cost, in_turn, runs
from benchmarks.reducers.front_rows import read_rows
from benchmarks.reducers.schedules import Matched
from datasets.stories.story_set import StorySet, make
from tests.integration.runs import ROOT, start

CONFIG = """
data: {kind: glimpses, train: 8, test: 6, scenes: 2, frames_per_scene: 8, size: 32}
overrides: [aggregation.reducer=none, video.image_size=32, video.num_frames=16, model.depth=2, model.width=32,
            model.heads=2, model.text.depth=1, model.text.width=32, model.text.heads=2, model.text.intermediate=32,
            train.workers=0, train.batch_size=4, train.max_epochs=1, optim.warmup_steps=1]
pretrain: {config: configs/debug/pretrain_stories.yaml}
retrieval: {config: configs/debug/stories.yaml, overrides: [train.eval_every=1, train.log_every=5]}
vqa: {config: configs/debug/stories_qa.yaml, overrides: [train.eval_every=1]}
target: 0.6
seeds: [3, 5]
reducers:
  - {name: none, matched_by: nothing}
  - {name: frames only, matched_by: frames, aggregation: {reducer: geometry, order: sorted, weighted_pooling: true}}
sweep: {frames_per_block: [0, 3], patches_per_block: [0]}
findings: [{claim: nothing is lost, better: frames only, worse: none, stage: fine_tuned}]
"""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that were run; they run as calls, which is faster."""
    given: list[tuple[str, ...]] = []

    def run_command(words: tuple[str, ...]) -> None:
        if words[1] == "benchmarks.reducers.in_turn":
            runs = json.loads(Path(words[2]).read_text())
            given.extend(tuple(run["words"]) for run in runs)
            in_turn.main(runs)
            return
        given.append(words)
        if start(words[0].removesuffix(".py"), *words[1:]):
            raise ValueError(f"{words[0]}: failed")

    monkeypatch.setattr("scripts.parts.commands.run_command", run_command)
    monkeypatch.chdir(ROOT)
    return given


def compare(folder: Path, *more: str) -> int:
    path = folder / "small.yaml"
    path.write_text(CONFIG)
    try:
        compare_reducers.main(["--config", str(path), "--out", str(folder / "out"), *more])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / "results.json").read_text())["metrics"]


def test_runs_reports_and_goes_on(
    tmp_path: Path, commands: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare(tmp_path, "--plot-only") == 0 and "no task is finished for any seed" in capsys.readouterr().out
    out = tmp_path / "out"
    seed = out / "seed3"
    assert compare(tmp_path, "--seeds", "3", "--tasks", "retrieval") == 0 and not (seed / "vqa").exists()
    assert "retrieval of seeds 3; vqa of seeds none." in (out / "comparison.md").read_text()
    assert compare(tmp_path, "--seeds", "3") == 0
    assert "retrieval of seeds 3; vqa of seeds 3." in (out / "comparison.md").read_text()
    # Of each task: trained without, reduced off the shelf, trained with; then the sweep.
    folders = [next(word.partition("=")[2] for word in words if word.startswith("output_dir=")) for words in commands]
    of_task = ("fine_tuned/none", "fine_tuned/frames_only", "off_the_shelf/frames_only")
    expected = ["pretrain_divided", *(f"{task}/{name}" for task in ("retrieval", "vqa") for name in of_task)]
    assert sorted(folders) == sorted(str(seed / name) for name in (*expected, "retrieval/sweep/3_0"))
    assert folders[0] == str(seed / "pretrain_divided") and folders[1] == str(seed / "retrieval/fine_tuned/none")

    report: dict[str, Any] = json.loads((out / "comparison.json").read_text())
    rows = {(row["reducer"], row["stage"]): row for row in report["rows"]}
    assert list(rows) == [("frames only", "off_the_shelf"), ("none", "fine_tuned"), ("frames only", "fine_tuned")]
    for (name, stage), row in rows.items():
        found = metrics(seed / "retrieval" / stage / name.replace(" ", "_"))
        assert [row["metrics"][key] for key in ("R@1", "R@5", "R@10")] == [
            [found[key]] for key in ("t2v_r1", "t2v_r5", "t2v_r10")
        ]
        assert row["metrics"]["QA"] == [metrics(seed / "vqa" / stage / name.replace(" ", "_"))["accuracy"]]
    reduced = json.loads((seed / "retrieval/fine_tuned/frames_only/results.json").read_text())["config"]
    shelf = json.loads((seed / "retrieval/off_the_shelf/frames_only/results.json").read_text())
    assert reduced["aggregation"] == shelf["config"]["aggregation"] != {}
    assert reduced["aggregation"]["weighted_pooling"] and reduced["aggregation"]["frames_per_block"] > 0
    assert shelf["checkpoint"] == str(seed / "retrieval/fine_tuned/none/checkpoint_best")
    assert report["findings"][0].startswith("nothing is lost (frames only, none, fine-tuned): by recall ")
    assert [row["frames_per_block"] for row in report["sweep"]] == [3]
    assert all((out / f"{name}.png").stat().st_size > 5000 for name in ("quality", "tradeoff", "sweep"))

    # Again: nothing is run, and other settings do not pass for these.
    del commands[:]
    assert compare(tmp_path, "--seeds", "3") == 0 and commands == []
    assert compare(tmp_path, "retrieval.overrides=[train.eval_every=1]", "--seeds", "3") == 2
    assert commands == [] and "retrieval/fine_tuned/none: holds a run with other settings" in capsys.readouterr().err

    # An interrupted run is run again, and nothing else.
    (seed / "vqa/off_the_shelf/frames_only/done.json").unlink()
    assert compare(tmp_path, "--seeds", "3") == 0 and len(commands) == 1 and "--evaluate" in commands[0]

    def add_peaks(schedules: list[Matched], config: object, path: Path) -> None:
        measured = {cost.key_of(matched): {"seconds": 0.5, "peak_bytes": 2**20} for matched in schedules}
        path.write_text(json.dumps(measured))

    monkeypatch.setattr(compare_reducers, "times", lambda *_: {})
    monkeypatch.setattr(compare_reducers, "add_peaks", add_peaks)
    assert compare(tmp_path, "--measure-only") == 0 and "| 500.0 | 1.0 |" in (out / "comparison.md").read_text()
    first, *_ = read_rows(out / "rows.json")
    assert (first.encoder, first.reducer, first.milliseconds) == ("testa divided", "frames only", 500.0)
    assert first.seeds == [3] and set(first.changes) == {"recall", "answers"} and first.mebibytes == 1.0

    # Answers are reported without retrieval, too.
    (seed / "retrieval/off_the_shelf/frames_only/done.json").unlink()
    assert compare(tmp_path, "--plot-only") == 0
    assert "retrieval of seeds none; vqa of seeds 3." in (out / "comparison.md").read_text()


def test_mistakes_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, said in (
        (["--seeds", "4"], "error: --seeds 4: the configuration has 3, 5"),
        (["target=2.0"], "target: 2.0 is not a share"),
    ):
        assert compare(tmp_path, *more) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and said in lines[0]
    assert not (tmp_path / "out").exists()


def test_off_the_shelf_alone_trains_nothing_but_the_reference(
    tmp_path: Path, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another system: a UMT that was trained without a reducer, and reduced by vid-TLDR's and by pruning."""
    config = YAML(typ="safe", pure=True).load(ROOT / "configs" / "comparison" / "umt_stories.yaml")
    config["data"] = {"kind": "actions", "train": 4, "test": 3, "frames_per_scene": 4}
    config["overrides"] += ["video.num_frames=4", "train.workers=0", "train.batch_size=4", "train.max_epochs=1"]
    config["overrides"] += ["train.eval_every=1", "optim.warmup_steps=1"]
    config["reducers"] = [one for one in config["reducers"] if one["name"] in ("none", "saliency", "prune")]
    for reducer in config["reducers"][1:]:
        reducer["aggregation"]["tokens_per_block"] = [20, 8]
    config["findings"] = [one for one in config["findings"] if one["worse"] in ("none", "prune")]
    monkeypatch.setitem(globals(), "CONFIG", json.dumps(config))
    assert compare(tmp_path, "--seeds", "1") == 0
    assert ["--evaluate" in words for words in commands] == [False, True, True]
    report: dict[str, Any] = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [(row["reducer"], row["stage"]) for row in report["rows"]] == [
        ("saliency", "off_the_shelf"), ("prune", "off_the_shelf"), ("none", "fine_tuned")
    ]  # fmt: skip
    assert len(report["findings"]) == 2 and all("in 0 of 1" in one or "in 1 of 1" in one for one in report["findings"])


def test_trained_weights_are_compared_on_data_of_ones_own(
    tmp_path: Path, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At their share of GMACs and at their share of measured milliseconds, with what each changes."""
    make(tmp_path / "data", StorySet(kind="glimpses", train=6, test=6, scenes=2, size=32), workers=1)
    small = YAML(typ="safe", pure=True).load(CONFIG)
    settings = [*small["overrides"], f"data.root={tmp_path / 'data'}", "train.eval_every=1"]
    recipe = small["retrieval"]["config"]
    assert start("train_retrieval", "--config", recipe, *settings, f"output_dir={tmp_path / 'trained'}") == 0

    kept = {name: small[name] for name in ("reducers", "target")}
    config = {**kept, "own_data": True, "weights": str(tmp_path / "trained" / "checkpoint_best"), "seeds": [0]}
    config |= {"overrides": settings, "retrieval": {"config": recipe}, "stages": ["off_the_shelf"]}
    config |= {"prices": ["gmacs", "milliseconds"], "encoder": "tiny", "findings": []}
    monkeypatch.setitem(globals(), "CONFIG", json.dumps(config))
    monkeypatch.setattr(runs, "times", fake_times)
    assert compare(tmp_path) == 0

    assert len(commands) in (2, 3) and all(words[1] == "--evaluate" for words in commands)
    rows = read_rows(tmp_path / "out" / "rows.json")
    assert [(row.encoder, row.reducer, row.matched_by) for row in rows] == [
        ("tiny", "frames only", "gmacs"), ("tiny", "frames only", "milliseconds"), ("tiny", "none", None)
    ]  # fmt: skip
    for row in rows[:2]:
        mean, low, high = row.changes["recall"]
        assert mean == pytest.approx(row.recall[0] - rows[2].recall[0]) and low <= mean <= high


def test_one_training_serves_several_budgets(
    tmp_path: Path, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a row that is trained at its own budget, and evaluated off the shelf."""
    small = YAML(typ="safe", pure=True).load(CONFIG)
    kept: dict[str, Any] = {name: small[name] for name in ("data", "target", "retrieval")}
    shared = [*small["overrides"], "model.attention=joint"]
    drawn = {"reducer": "run_length", "keep": 0.5, "train_keep": [0.2, 1.0]}
    reducers: list[dict[str, Any]] = [{"name": "none", "matched_by": "nothing"}]
    for keep in (1.0, 0.25):
        reducers.append({"name": f"drawn {keep}", "weights_of": "drawn", "aggregation": {"keep": keep}})
    reducers += [{"name": "drawn", "aggregation": drawn}, {"name": "low", "aggregation": {"keep": 0.25}}]
    for reducer in reducers[1:]:
        reducer |= {"matched_by": "given", "aggregation": {"reducer": "run_length", **reducer["aggregation"]}}
    config = {**kept, "overrides": shared, "reducers": reducers, "seeds": [3]}
    monkeypatch.setitem(globals(), "CONFIG", json.dumps(config))
    assert compare(tmp_path) == 0

    seed = tmp_path / "out" / "seed3" / "retrieval"
    folders = [next(word.partition("=")[2] for word in words if word.startswith("output_dir=")) for words in commands]
    assert folders == [str(seed / name) for name in (
        "fine_tuned/none", "fine_tuned/drawn", "fine_tuned/low", "fine_tuned/drawn_1.0", "fine_tuned/drawn_0.25",
        "off_the_shelf/low",
    )]  # fmt: skip
    assert ["--evaluate" in words for words in commands] == [False] * 3 + [True] * 3

    # What was drawn for in training, and at which budget whose weights were evaluated.
    results = {path: json.loads((Path(path) / "results.json").read_text()) for path in folders}
    sections = [results[path]["config"]["aggregation"] for path in folders]
    assert [section.get("train_keep") for section in sections] == [None, [0.2, 1.0], None, None, None, None]
    assert [section.get("keep") for section in sections] == [None, 0.5, 0.25, 1.0, 0.25, 0.25]
    weights = {path: str(seed / "fine_tuned" / name / "checkpoint_best") for path, name in zip(
        folders[3:], ("drawn", "drawn", "none"), strict=True
    )}  # fmt: skip
    assert {path: results[path]["checkpoint"] for path in weights} == weights

    rows = read_rows(tmp_path / "out" / "rows.json")
    assert [(row.reducer, row.stage, row.schedule[:4]) for row in rows] == [
        ("low", "off_the_shelf", "0.25"), ("none", "fine_tuned", "16 f"), ("drawn 1.0", "fine_tuned", "1 of"),
        ("drawn 0.25", "fine_tuned", "0.25"), ("drawn", "fine_tuned", "0.5 "), ("low", "fine_tuned", "0.25"),
    ]  # fmt: skip
    del commands[:]
    (seed / "fine_tuned" / "drawn_0.25" / "done.json").unlink()
    assert compare(tmp_path) == 0 and len(commands) == 1
    assert f"output_dir={seed / 'fine_tuned' / 'drawn_0.25'}" in commands[0]


def fake_times(schedules: list[Matched], config: object, path: Path) -> dict[str, Any]:
    measured = {cost.key_of(matched): {"seconds": matched.cost.gmacs} for matched in schedules}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(measured))
    return measured


@pytest.mark.soak
@pytest.mark.parametrize("name", ["stoa", "testa_divided", "testa_joint", "tvts", "tvts_looking", "umt"])
def test_every_encoder_is_compared_on_flashes(
    name: str, tmp_path: Path, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files as they are, but for fewer and shorter runs."""
    folder, yaml = ROOT / "configs" / "comparison", YAML(typ="safe", pure=True)
    own = yaml.load(folder / f"flashes_{name}.yaml")
    bases = own.pop("base")
    config = {}
    for base in [bases] if isinstance(bases, str) else bases:
        config |= yaml.load(folder / base)
    config |= own
    config |= {"data": {**config["data"], "train": 12, "test": 6}, "prices": ["gmacs"], "seeds": [0]}
    short = {"optim.warmup_steps": 1, "train.batch_size": 4, "train.max_epochs": 1}
    for task in ("pretrain", "retrieval", "vqa"):
        if task not in config:
            continue
        kept = [one for one in config[task]["overrides"] if one.partition("=")[0] not in (*short, "train.eval_every")]
        config[task]["overrides"] = [*kept, *(f"{key}={value}" for key, value in short.items())]
        if task != "pretrain":
            config[task]["overrides"].append("train.eval_every=1")

    monkeypatch.setitem(globals(), "CONFIG", json.dumps(config))
    assert compare(tmp_path) == 0
    rows = read_rows(tmp_path / "out" / "rows.json")
    assert {row.encoder for row in rows} == {config["encoder"]}
    assert {row.reducer for row in rows} == {reducer["name"] for reducer in config["reducers"]}
