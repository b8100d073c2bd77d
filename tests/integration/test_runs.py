"""Whole runs through the entry scripts: train, go on, finish, evaluate, start from another run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from configs.load import load, to_dict
from configs.schema import RetrievalConfig
from engine.run import run
from models.parts.features import VideoFeatures
from models.testa.model import VisionLanguageModel
from tasks.base import PairTask
from tasks.retrieval import RetrievalTask
from tests.gloo import run_ranks
from tests.integration.runs import (
    ROOT,
    SHORT,
    command,
    losses_of,
    metrics_of,
    results_of,
    start,
    train,
    weights_of,
    write_config,
)
from tests.tiny_runs import SETTINGS, config, write_data

CAPTIONS = [1, 2, 1, 1, 1, 2, 1, 1]
LEARNING: dict[str, Any] = {
    "optim": {"lr": 2e-2, "clip_norm": 1.0, "warmup_steps": 10},
    "train": {"max_epochs": 40, "batch_size": 8, "eval_every": 40},
    "objective": {"queue_size": 0, "alpha": 0.0, "momentum": 0.5},
}
LOSSES = {"loss", "loss_vtc", "loss_vtm"}


class Killed(Exception):
    """What stops a run from outside."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a finished run in `run`."""
    root = write_data(tmp_path_factory.mktemp("data"), CAPTIONS)
    assert start("train_retrieval", "--config", write_config("retrieval", root, **SHORT)) == 0
    return root


@pytest.fixture(scope="module")
def learned(root: Path) -> Path:
    """The folder of a run that has learned its data."""
    return train(root, root / "learned", **LEARNING)


def evaluate(folder: Path, *overrides: object, config: Path | None = None) -> dict[str, Any]:
    arguments = ("--evaluate", *(["--config", config] if config else []), f"output_dir={folder}", *overrides)
    assert start("train_retrieval", *arguments) == 0
    return results_of(folder)


def test_training_leaves_results_that_say_all(root: Path) -> None:
    results = results_of(root / "run")
    assert (results["task"], results["dataset"], results["split"]) == ("retrieval", root.name, "captions")
    assert (results["num_videos"], results["num_texts"], results["num_missing"]) == (8, 10, 0)
    assert results["checkpoint"] == str(root / "run" / "checkpoint_best")
    assert results["config"] == to_dict(load(RetrievalConfig, root / "config.yaml", []))
    assert {"torch", "device", "precision", "revision"} <= results["versions"].keys()
    names = [
        f"{direction}_{name}"
        for direction in ("t2v", "v2t")
        for name in ("r1", "r5", "r10", "r50", "mean_recall", "median_rank", "mean_rank", "geometric_mean")
    ]
    assert results["metrics"].keys() == {*names, *(f"{name}_cosine" for name in names)}


def test_the_record_of_a_run(root: Path) -> None:
    lines = metrics_of(root / "run")
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == list(range(1, 9))  # 10 pairs are 2 steps of 4 an epoch
    assert [(line["step"], line["epoch"]) for line in lines if line["kind"] == "evaluation"] == [(4, 2.0), (8, 4.0)]
    losses = losses_of(root / "run")
    assert all(line.keys() == LOSSES for line in losses)
    assert all(line["loss"] == pytest.approx(line["loss_vtc"] + line["loss_vtm"], abs=1e-5) for line in losses)
    assert sum(line["loss"] for line in losses[-3:]) < 0.9 * sum(line["loss"] for line in losses[:3])
    best = max(line["t2v_mean_recall"] for line in lines if line["kind"] == "evaluation")
    assert results_of(root / "run")["metrics"]["t2v_mean_recall"] == best


def test_a_run_learns(learned: Path) -> None:
    """Chance is 12.5."""
    metrics = results_of(learned)["metrics"]
    assert metrics["t2v_r1"] >= 60 and metrics["v2t_r1"] >= 60 and metrics["t2v_r1_cosine"] >= 60
    losses = losses_of(learned)
    assert losses[-1]["loss_vtc"] < 0.5 * losses[0]["loss_vtc"]


def test_a_finished_run_is_evaluated_again(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, lines = results_of(root / "run"), metrics_of(root / "run")
    (root / "run" / "results.json").unlink()
    assert start("train_retrieval", "--config", root / "config.yaml") == 0
    assert "this run is finished; raise train.max_epochs to continue training" in capsys.readouterr().err
    assert results_of(root / "run") == before and metrics_of(root / "run") == lines


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize("inside", ["", "/model.safetensors"])
def test_evaluating_a_checkpoint_gives_trainings_numbers(
    root: Path, learned: Path, tmp_path: Path, with_config: bool, inside: str
) -> None:
    checkpoint = f"{learned / 'checkpoint_best'}{inside}"
    results = evaluate(tmp_path, f"checkpoint={checkpoint}", config=root / "config.yaml" if with_config else None)
    assert results["metrics"] == results_of(learned)["metrics"]
    assert results["checkpoint"] == checkpoint
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "missing_videos.jsonl",
        "outcomes.json",
        "results.json",
        "results_history.jsonl",
    ]


def test_evaluation_writes_beside_the_current_folder_where_nothing_else_is_said(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    assert start("train_retrieval", "--evaluate", f"checkpoint={root / 'run' / 'checkpoint_best'}") == 0
    assert results_of(tmp_path / "outputs" / "evaluation")["metrics"] == results_of(root / "run")["metrics"]


# Overrides, and the tokens left of 4 frames of 4 patches (or as many as there then are), each axis losing 1 a block.
OVERRIDES: dict[str, tuple[list[str], int]] = {
    "as trained": ([], 1 + 2 * 2),
    "no aggregation": (["aggregation.reducer=none"], 1 + 4 * 4),
    "another reducer": (["aggregation.reducer=prune", "aggregation.patches_per_block=[2,1]"], 1 + 2 * 1),
    "one knob": (["aggregation.keep=0.5"], 1 + 3 * 3),
    "more frames": (["video.num_frames=8"], 1 + 6 * 2),
    "larger frames": (["video.image_size=64"], 1 + 2 * 14),
    "fewer frames": (["video.num_frames=3", "aggregation.frames_per_block=[1,0]"], 1 + 2 * 2),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_aggregation_frames_and_size_may_differ_at_evaluation(
    learned: Path, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: set[int] = set()
    original = VisionLanguageModel.encode_video

    def watched(model: VisionLanguageModel, video: torch.Tensor) -> VideoFeatures:
        encoded = original(model, video)
        counts.add(encoded.tokens.shape[1])
        return encoded

    monkeypatch.setattr(VisionLanguageModel, "encode_video", watched)
    overrides, tokens = OVERRIDES[case]
    results = evaluate(tmp_path, f"checkpoint={learned / 'checkpoint_best'}", *overrides)
    assert counts == {tokens}
    assert (results["num_videos"], results["num_texts"]) == (8, 10)
    # On so few videos the ranks may well come out alike, so only equality is asserted, where it is due.
    assert results["metrics"] == results_of(learned)["metrics"] or case != "as trained"


def test_fine_tuning_starts_from_pretraining(root: Path, tmp_path: Path) -> None:
    pretrained = train(root, tmp_path / "pretrained", "pretrain", train={"max_epochs": 1})
    assert losses_of(pretrained)[0].keys() == LOSSES | {"loss_cap"}
    assert not (pretrained / "checkpoint_best").exists() and not (pretrained / "results.json").exists()
    last = pretrained / "checkpoint_last"
    still = {"lr": 0.0, "weight_decay": 0.0}
    tuned = train(root, tmp_path / "tuned", checkpoint=str(last), optim=still, train={"max_epochs": 1})
    before, after = weights_of(last), weights_of(tuned / "checkpoint_last")
    taken = [name for name in after if name.startswith("model.")]
    assert len(taken) > 80 and all(torch.equal(after[name], before[name]) for name in taken)
    assert [name for name in before if name.startswith("model.text_decoder")]
    assert (last / "tokenizer" / "tokenizer.json").read_bytes() == (
        tuned / "checkpoint_last" / "tokenizer" / "tokenizer.json"
    ).read_bytes()


def test_images_are_pretrained_on_among_videos(root: Path, tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (6, 3), dtype=np.uint8)
    lines = [{"video": f"{video}.mp4", "caption": f"video {video}"} for video in range(2)]
    for number, colour in enumerate(colours):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.broadcast_to(colour, (40, 56, 3)).copy()).save(path)
        lines.append({"video": str(path), "caption": f"a picture {number}"})
    (root / "mixed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = train(
        root, tmp_path / "mixed", "pretrain", data={"root": str(root), "manifest": "mixed.jsonl"},
        video={"augment": True, "resize": 40},
    )  # fmt: skip
    assert len(losses_of(folder)) == 4 and not (folder / "quarantine.jsonl").exists()
    assert len({line["loss"] for line in losses_of(folder)}) == 4


# All that is random, switched on.
RANDOM: dict[str, Any] = {
    "train": {"max_epochs": 3, "batch_size": 4, "accumulate": 2, "save_every": 1, "workers": 1},
    "video": {"train_sampling": "random", "augment": True, "resize": 40},
    "optim": {"lr": 1e-3, "warmup_steps": 2, "clip_norm": 1.0},
    "model": {**SETTINGS["model"], "drop_path": 0.2, "text": {**SETTINGS["model"]["text"], "dropout": 0.2}},
}


@contextmanager
def killed_at(kill_step: int) -> Iterator[None]:
    """A run inside ends as it begins that step."""
    begin_step = PairTask.begin_step

    def killed(task: PairTask, step: int, *arguments: Any) -> None:
        if step == kill_step:
            raise Killed
        begin_step(task, step, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(PairTask, "begin_step", killed)
        yield


def assert_equal_runs(folder: Path, other: Path) -> None:
    for name in ("model.safetensors", "optimizer.safetensors", "random.json"):
        assert (folder / "checkpoint_last" / name).read_bytes() == (other / "checkpoint_last" / name).read_bytes(), name
    assert metrics_of(folder) == metrics_of(other)


@pytest.mark.parametrize("task", ["pretrain", "retrieval"])
def test_a_run_that_was_killed_goes_on_bit_for_bit(root: Path, tmp_path: Path, task: str) -> None:
    whole = train(root, tmp_path / "whole", task, **RANDOM)
    with killed_at(3):  # the second step of an epoch of two
        train(root, tmp_path / "killed", task, **RANDOM)
    state = json.loads((tmp_path / "killed" / "checkpoint_last" / "state.json").read_text())
    assert (state["step"], state["epoch"], state["step_in_epoch"]) == (3, 1, 1)
    assert_equal_runs(train(root, tmp_path / "killed", task, **RANDOM), whole)


def test_two_processes_that_were_killed_go_on_bit_for_bit(root: Path, tmp_path: Path) -> None:
    run_ranks(2, run_whole_and_killed, root, tmp_path)
    assert len(losses_of(tmp_path / "whole")) == 6
    assert_equal_runs(tmp_path / "killed", tmp_path / "whole")


def run_whole_and_killed(root: Path, folder: Path) -> None:
    """In one process group, which `run` would leave."""
    sections = {**RANDOM, "train": {**RANDOM["train"], "workers": 0}}
    whole, killed = (
        config("retrieval", root, **sections, output_dir=str(folder / name)) for name in ("whole", "killed")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.run.stop_distributed", lambda: None)
        run(whole, RetrievalTask)
        with killed_at(3):
            run(killed, RetrievalTask)
        run(killed, RetrievalTask)


def test_a_finished_run_trains_on_when_it_is_given_more_epochs(root: Path, tmp_path: Path) -> None:
    folder = train(root, tmp_path / "run", train={"max_epochs": 1})
    first = metrics_of(folder)
    train(root, tmp_path / "run", train={"max_epochs": 2})
    assert metrics_of(folder)[: len(first)] == first and metrics_of(folder)[-1]["step"] == 4


def test_the_script_itself(learned: Path, tmp_path: Path) -> None:
    command("train_retrieval.py", "--evaluate", f"checkpoint={learned / 'checkpoint_best'}", f"output_dir={tmp_path}")
    assert results_of(tmp_path)["metrics"] == results_of(learned)["metrics"]
