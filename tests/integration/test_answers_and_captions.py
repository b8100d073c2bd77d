"""Question answering and captioning through their entry scripts: train, go on, evaluate, start from another run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint_folder import read_weights
from engine.run import run
from tasks.caption import CaptionTask
from tasks.vqa import VqaTask
from tests.gloo import run_ranks
from tests.integration.runs import (
    SCRIPTS,
    assert_same_losses,
    files_below,
    losses_of,
    metrics_of,
    results_of,
    start,
    train,
    weights_of,
    write_config,
)
from tests.tiny_runs import config, write_data, write_questions

pytestmark = pytest.mark.usefixtures("without_java")

TASKS: dict[str, Any] = {"vqa": VqaTask, "caption": CaptionTask}
LOSSES = {"vqa": "loss_vqa", "caption": "loss_cap"}
BESIDE = {"vqa": "answers.json", "caption": "captions.json"}
QUESTIONS = [3, 1, 2, 0, 3, 1, 1, 1]
TRAINED: dict[str, Any] = {
    "optim": {"lr": 5e-3, "clip_norm": 1.0},
    "train": {"max_epochs": 4, "batch_size": 4, "eval_every": 2, "accumulate": 2},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captions of and questions about eight videos, and for each a test set of three of them."""
    root = write_data(tmp_path_factory.mktemp("data"), [1, 2, 1, 1, 1, 2, 1, 1])
    write_data(root, [2, 1, 1], "captions_test.jsonl")
    write_questions(root, [1, 2, 3], "questions_test.jsonl")
    return write_questions(root, QUESTIONS)


@pytest.fixture(scope="module")
def runs(root: Path) -> dict[str, Path]:
    """A finished run of each task whose test set is apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        return {task: train(root, root / task, task, **TRAINED, **with_test_set(task, root)) for task in TASKS}


def with_test_set(task: str, root: Path) -> dict[str, Any]:
    manifest = {"vqa": "questions", "caption": "captions"}[task]
    return {"data": {"root": str(root), "manifest": f"{manifest}.jsonl", "test_manifest": f"{manifest}_test.jsonl"}}


@pytest.mark.parametrize("task", TASKS)
def test_a_run_learns_and_ends_on_its_test_set(runs: dict[str, Path], task: str) -> None:
    losses = losses_of(runs[task])
    assert len(losses) == {"vqa": 12, "caption": 8}[task] and losses[0].keys() == {"loss", LOSSES[task]}
    assert sum(line["loss"] for line in losses[-3:]) < 0.9 * sum(line["loss"] for line in losses[:3])
    results = results_of(runs[task])
    assert (results["task"], results["num_videos"], results["num_annotated"]) == (task, 3, 3)
    assert results["split"] == {"vqa": "questions_test", "caption": "captions_test"}[task]
    assert results["num_texts"] == {"vqa": 6, "caption": 4}[task]
    evaluated = [line for line in metrics_of(runs[task]) if line["kind"] == "evaluation"]
    assert [line["step"] for line in evaluated] == [len(losses) // 2, len(losses)]
    rows = (runs[task] / "predictions.jsonl").read_text().splitlines()
    assert len(rows) == {"vqa": 6, "caption": 3}[task] and all("predicted" in json.loads(row) for row in rows)
    for checkpoint in ("checkpoint_best", "checkpoint_last"):
        assert (runs[task] / checkpoint / BESIDE[task]).is_file()


@pytest.mark.parametrize("task", TASKS)
def test_evaluating_the_checkpoint_gives_the_same_without_training_data(
    root: Path, runs: dict[str, Path], tmp_path: Path, task: str
) -> None:
    asked = ("--evaluate", f"checkpoint={runs[task] / 'checkpoint_best'}", f"output_dir={tmp_path}")
    assert start(SCRIPTS[task], *asked, "data.manifest=gone.jsonl") == 0
    found, expected = results_of(tmp_path), results_of(runs[task])
    for name in ("metrics", "split", "num_texts", "files"):
        assert found[name] == expected[name]
    assert (tmp_path / "predictions.jsonl").read_text() == (runs[task] / "predictions.jsonl").read_text()


@pytest.mark.parametrize("task", TASKS)
def test_a_finished_run_is_tested_again(root: Path, runs: dict[str, Path], task: str) -> None:
    before = results_of(runs[task])
    (runs[task] / "results.json").unlink()
    train(root, runs[task], task, **TRAINED, **with_test_set(task, root))
    assert results_of(runs[task]) == before


class Killed(Exception):
    """What stops a run from outside."""


@pytest.mark.parametrize("task", TASKS)
def test_a_run_that_was_killed_goes_on_bit_for_bit(
    root: Path, runs: dict[str, Path], tmp_path: Path, task: str
) -> None:
    sections = {**TRAINED, **with_test_set(task, root), "train": {**TRAINED["train"], "save_every": 1}}
    begin_step = TASKS[task].begin_step
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):

        def killed(module: Any, step: int, *arguments: Any) -> None:
            if step == 5:
                raise Killed
            begin_step(module, step, *arguments)

        patch.setattr(TASKS[task], "begin_step", killed)
        train(root, tmp_path / "run", task, **sections)
    train(root, tmp_path / "run", task, **sections)
    found, whole = weights_of(tmp_path / "run" / "checkpoint_last"), weights_of(runs[task] / "checkpoint_last")
    assert found.keys() == whole.keys() and all(torch.equal(found[name], whole[name]) for name in whole)
    assert metrics_of(tmp_path / "run") == metrics_of(runs[task])
    assert results_of(tmp_path / "run")["metrics"] == results_of(runs[task])["metrics"]


def run_each(root: Path, folder: Path) -> None:
    """Both tasks in one process group, which `run` would leave."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.run.stop_distributed", lambda: None)
        for task, task_class in TASKS.items():
            sections = {**TRAINED, **with_test_set(task, root), "output_dir": str(folder / task)}
            run(config(task, root, **sections), task_class)


def test_two_processes_train_and_evaluate_as_one(root: Path, tmp_path: Path) -> None:
    run_each(root, tmp_path / "one")
    run_ranks(2, run_each, root, tmp_path / "two")
    for task in TASKS:
        one, two = tmp_path / "one" / task, tmp_path / "two" / task
        assert_same_losses(two, one, 2e-4)
        for name in ("split", "num_texts", "num_videos", "files"):
            assert results_of(two)[name] == results_of(one)[name]


@pytest.mark.parametrize("task", TASKS)
def test_it_starts_from_pretraining(root: Path, tmp_path: Path, task: str) -> None:
    """Whatever both have: the video encoder, the decoder, and for questions the text encoder."""
    pretrained = train(root, tmp_path / "pretrained", "pretrain", train={"max_epochs": 1})
    last, still = pretrained / "checkpoint_last", {"lr": 0.0, "weight_decay": 0.0}
    tuned = train(root, tmp_path / "tuned", task, checkpoint=str(last), optim=still, train={"max_epochs": 1})
    before, after = read_weights(last), read_weights(tuned / "checkpoint_last")
    assert len(after) > 60 and all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    parts = {name.split(".")[1] for name in after}
    assert parts == {"visual_encoder", "text_decoder", *(["text_encoder"] if task == "vqa" else [])}


ERRORS: dict[str, tuple[str, str, str]] = {
    "questions where captions are needed": (
        "train_caption", "data.manifest=questions.jsonl", r".*questions\.jsonl:1: .*question.*",
    ),
    "captions where questions are needed": (
        "train_vqa", "data.manifest=captions.jsonl", r".*captions\.jsonl:1: .*caption.*",
    ),
    "a test set that is not there": (
        "train_vqa", "data.test_manifest=gone.jsonl", r".*gone\.jsonl: no such manifest.*",
    ),
    "an answer longer than it can be": (
        "train_caption", "evaluation.max_tokens=99", r"evaluation\.max_tokens: 99 is more than the 24 tokens .*",
    ),
    "settings of the other inference": (
        "train_vqa", "evaluation.num_beams=5", r".*evaluation\.num_beams: has no effect .*",
    ),
    "a dataset of the other kind": (
        "train_vqa", "data.dataset=didemo", r".*data\.dataset: didemo has captions, not questions; .*",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_bad_input_ends_in_one_line(root: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    script, override, expected = ERRORS[case]
    task = next(task for task, name in SCRIPTS.items() if name == script)
    given = write_config(task, root, f"{task}.yaml", output_dir=str(root / "new"))
    if "dataset" in override:
        text = given.read_text().replace("manifest: questions.jsonl", "train_split: train")
        given.write_text(text.replace(", manifest: questions.jsonl", ""))
    before = files_below(root)
    capsys.readouterr()
    assert start(script, "--config", given, override) == 2
    said = capsys.readouterr().err
    line = said[said.index("error: ") :].removeprefix("error: ").rstrip("\n")
    assert "Traceback" not in said and "\n" not in line and re.fullmatch(expected, line), line
    assert files_below(root) == before
