"""What a run says of its results and of the weights it resumes from: enough, and no false alarm."""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from torch import device, nn

from engine.distributed import start_distributed
from engine.logging import headline
from engine.step import TrainingStep
from tests.gloo import run_ranks
from tests.integration.runs import start, write_config
from tests.tiny_runs import write_data

METRICS = {"t2v_r1": 59.04, "t2v_r5": 95.5, "t2v_r10": 99.0, "t2v_mean_recall": 84.5, "v2t_r1": 3.0}


@pytest.mark.parametrize(
    ("best_metric", "shown"),
    [
        ("t2v_mean_recall", "t2v_mean_recall 84.5 t2v_r1 59.04 t2v_r5 95.5"),
        ("t2v_r5", "t2v_r5 95.5 t2v_r1 59.04 t2v_r10 99"),
        (None, "t2v_r1 59.04 t2v_r5 95.5 t2v_r10 99"),
        ("no_metric", "t2v_r1 59.04 t2v_r5 95.5 t2v_r10 99"),
    ],
)
def test_a_line_shows_the_metric_that_chooses_and_two_more(best_metric: str | None, shown: str) -> None:
    assert headline(METRICS, best_metric) == shown
    assert headline({}, best_metric) == ""


def test_a_run_says_where_its_results_are_and_resuming_raises_no_alarm(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config("retrieval", write_data(tmp_path, [1] * 4), train={"max_epochs": 1})
    run = tmp_path / "run"

    assert start("train_retrieval", "--config", config) == 0
    trained = capfd.readouterr().err
    last = trained.splitlines()[-1]
    assert last.endswith(
        f"finished: the best weights are in {run}/checkpoint_best, their results in {run}/results.json"
    )
    (evaluation,) = [line for line in trained.splitlines() if "step 1: " in line]
    assert evaluation.count("t2v_") == 3 and "v2t_" not in evaluation

    assert start("train_retrieval", "--config", config, "train.max_epochs=2") == 0
    resumed = capfd.readouterr().err
    assert "resuming from step 1 of 2" in resumed and "weights" not in resumed.replace("best weights", "")

    best = run / "checkpoint_best"
    assert start("train_retrieval", "--evaluate", f"checkpoint={best}", f"output_dir={tmp_path / 'evaluated'}") == 0
    evaluated = capfd.readouterr().err
    assert f"weights from {best}" in evaluated  # somebody else's weights are still reported on
    assert evaluated.splitlines()[-1].endswith(f"(all: {tmp_path / 'evaluated'}/results.json)")


def warnings_of_ddp() -> list[str]:
    start_distributed()
    step = SimpleNamespace(module=nn.Linear(2, 2), device=device("cpu"), _losses_differ=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = TrainingStep._distributed(cast(TrainingStep, step))
    assert model.broadcast_buffers is False
    return [str(warning.message) for warning in caught]


def test_no_rank_warns_of_what_a_user_cannot_change() -> None:
    assert run_ranks(2, warnings_of_ddp) == [[], []]
