"""A test set apart is evaluated at the end with the best weights; files beside results.json are whole and named."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import checkpoint_folder
from engine.checkpoint_folder import read_weights
from engine.loop import evaluate
from engine.results import FAILED_SHOWN, write_results
from engine.run import run
from tests.engine.stub import Interrupted, StubConfig, StubTask, stub_config
from tests.gloo import run_ranks


def apart(folder: Path) -> StubConfig:
    """The configuration of a run whose test set is not the one that chooses the best weights."""
    config = stub_config(folder)
    return replace(config, data=replace(config.data, test_manifest="test.jsonl"))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_ends_with_its_best_weights_on_the_test_set(tmp_path: Path) -> None:
    run(apart(tmp_path), StubTask)
    history = lines_of(tmp_path / "results_history.jsonl")
    assert [line["split"] for line in history] == ["eval", "eval", "test"]  # the third epoch is not better
    results = json.loads((tmp_path / "results.json").read_text())
    assert results == history[-1] and results["checkpoint"] == str(tmp_path / "checkpoint_best")
    best = read_weights(tmp_path / "checkpoint_best")
    assert results["metrics"]["weight"] == pytest.approx(float(best["head.weight"].sum()))
    last = read_weights(tmp_path / "checkpoint_last")
    assert results["metrics"]["weight"] != pytest.approx(float(last["head.weight"].sum()))
    assert history[1]["metrics"] == results["metrics"]


def test_where_nothing_is_apart_nothing_is_evaluated_again(tmp_path: Path) -> None:
    run(stub_config(tmp_path), StubTask)
    assert [line["split"] for line in lines_of(tmp_path / "results_history.jsonl")] == ["eval", "eval"]


def test_a_run_killed_before_its_test_is_tested_when_it_resumes(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(apart(tmp_path), partial(StubTask, stop_evaluation=4))  # three epochs, then the test
    assert json.loads((tmp_path / "results.json").read_text())["split"] == "eval"
    run(apart(tmp_path), StubTask)
    found = json.loads((tmp_path / "results.json").read_text())
    run(apart(tmp_path.parent / "whole"), StubTask)
    whole = json.loads((tmp_path.parent / "whole" / "results.json").read_text())
    assert found["split"] == whole["split"] == "test" and found["metrics"] == whole["metrics"]


def test_two_processes_end_alike(tmp_path: Path) -> None:
    run(apart(tmp_path / "one"), partial(StubTask))
    run_ranks(2, run, apart(tmp_path / "two"), StubTask)
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert one["split"] == two["split"] == "test" and one["metrics"].keys() == two["metrics"].keys()


def evaluations_of_one_that_sees_late(config: StubConfig) -> int:
    """Rank 1 of a network file system that does not show it the best weights yet."""
    tasks: list[StubTask] = []

    def remembered(*arguments: Any) -> StubTask:
        tasks.append(StubTask(*arguments))
        return tasks[0]

    with pytest.MonkeyPatch.context() as patch:
        if os.environ["RANK"] == "1":
            patch.setattr(checkpoint_folder, "find_folder", lambda target: None)
        run(config, remembered)
    return tasks[0].evaluations


def test_no_rank_evaluates_alone(tmp_path: Path) -> None:
    assert run_ranks(2, evaluations_of_one_that_sees_late, apart(tmp_path)) == [4, 4]


def test_evaluating_is_of_the_test_set(tmp_path: Path) -> None:
    task = StubTask(apart(tmp_path), torch.device("cpu"))
    splits = [evaluate(task, task.config, torch.device("cpu"), final=final)["split"] for final in (False, True)]
    assert splits == ["eval", "test"]


def test_files_are_written_beside_the_results_and_named_in_them(tmp_path: Path) -> None:
    run(apart(tmp_path), StubTask)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["files"] == ["missing_videos.jsonl", "predictions.txt"]
    assert (tmp_path / "predictions.txt").read_text() == "evaluation 4"
    assert lines_of(tmp_path / "missing_videos.jsonl") == results["failed"] != []
    assert not list(tmp_path.glob("*.tmp"))


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "predictions.txt").write_text("of before")

    def write(path: Path) -> None:
        path.write_text("half")
        raise OSError("the disk is full")

    result = {"metrics": {}, "files": {"predictions.txt": write}}
    with pytest.raises(OSError, match="full"):
        write_results(stub_config(tmp_path), result, "x", torch.device("cpu"), "fp32")
    assert (tmp_path / "predictions.txt").read_text() == "of before" and not (tmp_path / "results.json").exists()


def test_of_many_missing_videos_results_show_some_and_the_file_all(tmp_path: Path) -> None:
    failed = [{"video": f"{number}.mp4", "reason": "no such file"} for number in range(1000)]
    result = {"metrics": {"a": 1.0}, "failed": failed}
    written = write_results(stub_config(tmp_path), result, "x", torch.device("cpu"), "fp32")
    assert written["failed"] == failed[:FAILED_SHOWN] and lines_of(tmp_path / "missing_videos.jsonl") == failed


def test_values_of_different_metrics_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that resumes where another metric is available starts choosing the best again, and logs it."""
    with pytest.raises(Interrupted):
        run(stub_config(tmp_path), partial(StubTask, stop_evaluation=3))
    run(stub_config(tmp_path), ByWeight)
    assert (
        "was chosen by likeness, and the best is now chosen by weight: the two do not compare"
        in capsys.readouterr().err
    )
    state = json.loads((tmp_path / "checkpoint_best" / "state.json").read_text())
    assert (state["best_metric"], state["epoch"]) == ("weight", 3)


class ByWeight(StubTask):
    best_metric = "weight"
