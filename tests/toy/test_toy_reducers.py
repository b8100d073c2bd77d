"""The toy's reducers are compared by the command that compares every system's, from a file of a few lines."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import child
from benchmarks.measure import Variant
from benchmarks.reducers import __main__ as compare_reducers, in_turn
from benchmarks.reducers.cost import SETTINGS, variant_of
from benchmarks.reducers.recipes import retrieval_of
from benchmarks.reducers.settings import load_comparison
from models import systems
from tests.integration.runs import start
from tests.toy.test_toy_system import in_the_tables  # noqa: F401  # the toy's lines in the tables

RETRIEVAL = """
task: retrieval
model: {name: toy, depth: 6, width: 96, text: {vocab_size: 400, max_positions: 64}}
objective: {name: margin}
video: {num_frames: 8, image_size: 32}
data: {root: videos, manifest: train.jsonl, eval_manifest: test.jsonl}
optim: {lr: 3.0e-2}
train: {batch_size: 4, max_epochs: 1, eval_every: 1, workers: 0}
evaluation: {rerank: 0}
"""
COMPARISON = """
data: {kind: glimpses, train: 8, test: 6, scenes: 2, frames_per_scene: 8, size: 32}
overrides: []
retrieval: {config: RECIPE}
target: 0.8
seeds: [1]
reducers:
  - {name: none, matched_by: nothing}
  - {name: fewer frames, matched_by: num_frames}
  - {name: tome, aggregation: {reducer: tome}}
  - {name: tome at once, blocks: 1, aggregation: {reducer: tome}}
  - {name: tome kept, matched_by: keep, aggregation: {reducer: tome}}
findings: [{claim: merging is better, better: tome, worse: fewer frames, stage: fine_tuned}]
"""


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    (tmp_path / "toy.yaml").write_text(RETRIEVAL)
    path = tmp_path / "reducers.yaml"
    path.write_text(COMPARISON.replace("RECIPE", str(tmp_path / "toy.yaml")))
    return path


def test_its_reducers_are_compared(comparison: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_command(words: tuple[str, ...]) -> None:
        if words[1] == "benchmarks.reducers.in_turn":
            in_turn.main(json.loads(Path(words[2]).read_text()))
            return
        assert start(words[0].removesuffix(".py"), *words[1:]) == 0, words

    monkeypatch.setattr("scripts.parts.commands.run_command", run_command)
    out = tmp_path / "out"
    compare_reducers.main(["--config", str(comparison), "--out", str(out)])

    report: dict[str, Any] = json.loads((out / "comparison.json").read_text())
    assert report["seeds"] == {"retrieval": [1]} and report["findings"][0].startswith("merging is better")
    names = ["none", "fewer frames", "tome", "tome at once", "tome kept"]
    rows = {(row["reducer"], row["stage"]): row for row in report["rows"]}
    expected = [(name, stage) for stage in ("off_the_shelf", "fine_tuned") for name in names]
    assert list(rows) == expected[1:]  # none off the shelf is what none is fine-tuned

    whole = rows["none", "fine_tuned"]["gmacs"]
    for (name, stage), row in rows.items():
        folder = out / "seed1" / "retrieval" / stage / name.replace(" ", "_")
        results = json.loads((folder / "results.json").read_text())
        assert row["metrics"]["R@1"] == [results["metrics"]["t2v_r1"]]
        if name != "none":
            assert row["gmacs"] == pytest.approx(0.8 * whole, rel=0.08)
        if name.startswith("tome"):
            assert results["config"]["aggregation"]["reducer"] == "tome"
    assert rows["tome at once", "fine_tuned"]["schedule"].endswith(", 0, 0, 0, 0, 0 tokens a block")
    assert (out / "quality.png").stat().st_size > 5000


def test_its_time_is_measured(comparison: Path, tmp_path: Path) -> None:
    settings = load_comparison(comparison, [])
    reducers = compare_reducers.ReducerComparison(settings, tmp_path / "out").reducers
    variant = variant_of(reducers["tome"], retrieval_of(settings))
    sent = Variant(**json.loads(json.dumps({"build": variant.build, "arguments": variant.arguments})))
    assert child.build(sent, SETTINGS)() is None
    assert reducers["tome"].cost == systems.count(
        reducers["tome"].model, reducers["tome"].video, reducers["tome"].aggregation
    )
