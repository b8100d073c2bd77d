"""UMT's pre-training on videos and images with a teacher: killed, resumed, on two processes, and what starts from it.

Its checkpoint is fine-tuned for retrieval and for answers, and evaluated with and without the reducer: the same by one
process and by two, and in batches of any size.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.load import from_dict
from configs.schema import CONFIG_CLASSES
from engine.run import run
from tasks.pretrain import PretrainTask
from tasks.retrieval import RetrievalTask
from tasks.vqa import VqaTask
from tests.gloo import run_ranks
from tests.integration.runs import assert_same_losses, losses_of, metrics_of, results_of, weights_of
from tests.tasks.test_unmasked_teacher import ALL, settings
from tests.tiny_runs import write_data, write_questions

MERGED = {"reducer": "saliency", "tokens_per_block": [20, 8]}
CLASSES = {config.task: config for config in CONFIG_CLASSES}
TASKS: dict[str, Any] = {"pretrain": PretrainTask, "retrieval": RetrievalTask, "vqa": VqaTask}


class Killed(Exception):
    """What stops a run from outside."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos with captions and questions; the same captions name images, of one frame each."""
    root = write_data(tmp_path_factory.mktemp("data"), [1, 2, 1, 1, 1, 1, 1, 1])
    (root / "images.jsonl").write_text((root / "captions.jsonl").read_text())
    return write_questions(root, [2, 1, 1, 3, 1, 1, 1, 1])


def pretraining(root: Path, folder: Path, dropout: float = 0.1) -> dict[str, Any]:
    """By turns a step on four videos and a step on six images, in two micro-batches, with all losses and randomness."""
    sections = settings(root, "pretrain", losses=ALL, weights={"uta": 0.5})
    sources = [{"file": "captions.jsonl"}, {"file": "images.jsonl", "num_frames": 1, "batch_size": 6}]
    sections["data"] = {"root": str(root), "sources": sources, "mixing": "batch", "order": "turns"}
    sections["model"] = {**sections["model"], "pooling": "all", "drop_path": dropout}
    sections["model"]["text"] = {**sections["model"]["text"], "width": 24, "heads": 2, "dropout": dropout}
    sections["video"] |= {"train_sampling": "interval_random", "interpolation": "bicubic", "augment": "resized_crop"}
    sections["train"] |= {"accumulate": 2, "max_epochs": 2, "save_every": 1, "log_every": 1}
    sections["train"] |= {"activation_checkpointing": "recompute"}
    return {**sections, "output_dir": str(folder)}


def train(sections: dict[str, Any], evaluate: bool = False) -> Path:
    """Train or evaluate in the process group that there is, which `run` would leave."""
    config = from_dict(CLASSES[sections["task"]], sections, "test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.run.stop_distributed", lambda: None)
        run(config, TASKS[sections["task"]], evaluate_only=evaluate)
    return Path(sections["output_dir"])


@pytest.fixture(scope="module")
def pretrained(root: Path) -> Path:
    return train(pretraining(root, root / "pretrained"))


def test_all_losses_of_both_sources_without_the_teacher_in_the_checkpoint(pretrained: Path) -> None:
    losses = losses_of(pretrained)
    assert len(losses) == 8 and all(line.keys() == {"loss", *(f"loss_{name}" for name in ALL)} for line in losses)
    names = weights_of(pretrained / "checkpoint_last").keys()
    assert all(name.startswith("model.") for name in names) and not any("teacher" in name for name in names)
    assert any(name.startswith("model.vision_encoder.clip_decoder.1.") for name in names)


def test_a_run_that_was_killed_resumes_to_the_bit(root: Path, pretrained: Path, tmp_path: Path) -> None:
    begin_step = PretrainTask.begin_step

    def killed(task: PretrainTask, step: int, *arguments: Any) -> None:
        if step == 5:  # in the second epoch, on images
            raise Killed
        begin_step(task, step, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(PretrainTask, "begin_step", killed)
        train(pretraining(root, tmp_path / "run"))
    resumed = train(pretraining(root, tmp_path / "run"))
    assert metrics_of(resumed) == metrics_of(pretrained)
    before, after = weights_of(pretrained / "checkpoint_last"), weights_of(resumed / "checkpoint_last")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def without_accumulation(root: Path, folder: Path) -> dict[str, Any]:
    sections = pretraining(root, folder, dropout=0.0)
    return {**sections, "train": {**sections["train"], "accumulate": 1}}


def test_two_processes_train_as_one(root: Path, tmp_path: Path) -> None:
    train(without_accumulation(root, tmp_path / "one"))
    run_ranks(2, train, without_accumulation(root, tmp_path / "two"))
    assert_same_losses(tmp_path / "one", tmp_path / "two", tolerance=1e-4)


def fine_tuning(root: Path, task: str, checkpoint: Path, folder: Path, **sections: Any) -> dict[str, Any]:
    """Retrieval or answers that start from a checkpoint, or evaluate it."""
    given = pretraining(root, folder, dropout=0.0)
    objective = {"retrieval": {"name": "unmasked_teacher"}, "vqa": {"label_smoothing": 0.0}}[task]
    evaluation = {"retrieval": {"rerank": 4, "rerank_rule": "logit"}, "vqa": {}}[task]
    manifest = {"retrieval": "captions.jsonl", "vqa": "questions.jsonl"}[task]
    given |= {"task": task, "objective": objective, "evaluation": evaluation}
    given |= {"data": {"root": str(root), "manifest": manifest}, "checkpoint": str(checkpoint)}
    given["train"] = {"batch_size": 4, "max_epochs": 2, "eval_every": 2, "workers": 0}
    return given | sections


@pytest.mark.parametrize("task", ["retrieval", "vqa"])
def test_its_checkpoint_is_fine_tuned_and_evaluated_however_it_is_shared_out(
    root: Path, pretrained: Path, tmp_path: Path, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    trained = train(fine_tuning(root, task, pretrained / "checkpoint_last", tmp_path / "trained"))
    assert ("text_decoder is made of the later layers of text_encoder" in caplog.text) or task == "retrieval"
    metrics = results_of(trained)["metrics"]

    for number, sections in enumerate(({}, {"aggregation": MERGED})):
        found = []
        for processes, batch_size in ((1, 8), (1, 3), (2, 2)):
            folder = tmp_path / f"{number}-{processes}-{batch_size}"
            asked = fine_tuning(root, task, trained / "checkpoint_best", folder, **sections)
            asked["evaluation"] = {**asked["evaluation"], "batch_size": batch_size}
            if processes > 1:
                run_ranks(processes, train, asked, True)
            else:
                train(asked, evaluate=True)
            found.append(json.loads((folder / "results.json").read_text())["metrics"])
        assert found[0] == found[1] == found[2]
        assert found[0].keys() == metrics.keys() and (number == 1 or found[0] == metrics)
