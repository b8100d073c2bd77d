"""Pre-training on speech in turns with captions: it resumes, shares batches among processes, and is evaluated."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from configs.load import from_dict
from configs.schema import PretrainConfig
from datasets.stories.story_set import StorySet, make
from engine.run import run
from tasks.pretrain import PretrainTask
from tasks.sorting import permute_segments, segment_order, sorting_metrics
from tests.gloo import run_ranks
from tests.integration.runs import assert_same_losses, losses_of, metrics_of, results_of, start, weights_of

STORIES = StorySet(train=8, test=6, scenes=4, frames_per_scene=4, size=32, fps=4)
SETTINGS: dict[str, Any] = {
    "task": "pretrain",
    "model": {
        "name": "tvts", "depth": 2, "width": 24, "heads": 2, "patch_size": 8, "embed_dim": 16, "sort_heads": 2,
        "mask_ratio": 0.5,
        "text": {
            "tokenizer": "from_data", "vocab_size": 560, "depth": 2, "width": 16, "heads": 2, "max_positions": 48,
            "trained_blocks": 1,
        },
    },
    "video": {
        "num_frames": 8, "image_size": 24, "train_sampling": "interval_random", "eval_sampling": "interval_middle",
        "fit": "crop", "resize": 28, "interpolation": "nearest", "augment": "crop",
    },
    "data": {
        "sources": [
            {"file": "train_speech.jsonl", "kind": "speech"}, {"file": "train.jsonl", "losses": ["contrastive"]},
        ],
        "mixing": "batch", "order": "turns", "speech": {"cut": "whole"}, "eval_manifest": "test_speech.jsonl",
    },
    "objective": {"name": "sorting"},
    "evaluation": {"batch_size": 4},
    "optim": {"lr": 1e-3, "schedule": "step", "milestones": [1], "decay_rate": 0.5},
    "train": {"batch_size": 4, "max_epochs": 2, "accumulate": 2, "workers": 0, "log_every": 1, "save_every": 1},
}  # fmt: skip


SPEECH = {"file": "train_speech.jsonl", "kind": "speech"}


class Killed(Exception):
    """What stops a run from outside."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small story set, and in `whole` a run on it."""
    folder = tmp_path_factory.mktemp("stories") / "set"
    make(folder, STORIES, workers=1)
    assert train(folder, folder / "whole") == 0
    return folder


def settings(root: Path, output: Path, **sections: Any) -> dict[str, Any]:
    changed = {name: {**SETTINGS.get(name, {}), **section} for name, section in sections.items()}
    data = {**SETTINGS["data"], **sections.get("data", {}), "root": str(root)}
    return {**SETTINGS, **changed, "data": data, "output_dir": str(output)}


def task_of(root: Path, **sections: Any) -> PretrainTask:
    config = from_dict(PretrainConfig, settings(root, root / "unused", **sections), "test")
    return PretrainTask(config, torch.device("cpu"))


def train(root: Path, output: Path, **sections: Any) -> int:
    path = output.with_name(f"{output.name}.yaml")
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(settings(root, output, **sections), file)
    return start("pretrain", "--config", path)


def run_pretraining(root: Path, output: Path) -> None:
    # Adam would make steps as large as any of gradients that are rounding errors, as those of fresh time attention are.
    sections: dict[str, Any] = {"train": {"accumulate": 1}, "optim": {"eps": 1e-4}}
    run(from_dict(PretrainConfig, settings(root, output, **sections), "test"), PretrainTask)


def test_a_run_that_was_killed_goes_on_bit_for_bit(root: Path, tmp_path: Path) -> None:
    begin_step = PretrainTask.begin_step

    def killed(task: PretrainTask, step: int, *arguments: Any) -> None:
        if step == 5:  # in the second epoch, between the two sources
            raise Killed
        begin_step(task, step, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(PretrainTask, "begin_step", killed)
        train(root, tmp_path / "killed")
    assert train(root, tmp_path / "killed") == 0

    assert metrics_of(tmp_path / "killed") == metrics_of(root / "whole")
    before, after = (weights_of(folder / "checkpoint_last") for folder in (root / "whole", tmp_path / "killed"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_each_source_has_its_own_step_and_losses(root: Path) -> None:
    both, contrast = {"loss", "loss_contrastive", "loss_sorting"}, {"loss", "loss_contrastive"}
    assert [line.keys() for line in losses_of(root / "whole")] == [both, contrast] * 4
    rates = [line["lr"] for line in metrics_of(root / "whole") if line["kind"] == "train"]
    assert rates == [1e-3] * 4 + [5e-4] * 4, "the rate falls at the end of the first epoch"


def test_two_processes_train_and_are_evaluated_as_one(root: Path, tmp_path: Path) -> None:
    run_pretraining(root, tmp_path / "alone")
    run_ranks(2, run_pretraining, root, tmp_path / "ranks")
    assert_same_losses(tmp_path / "alone", tmp_path / "ranks", tolerance=1e-4)
    alone, ranks = (results_of(tmp_path / name) for name in ("alone", "ranks"))
    assert alone["metrics"] == ranks["metrics"] and alone["num_videos"] == ranks["num_videos"] == STORIES.test


def evaluate(root: Path, output: Path, *words: str) -> dict[str, Any]:
    checkpoint = root / "whole" / "checkpoint_last"
    assert start("pretrain", "--evaluate", f"checkpoint={checkpoint}", f"output_dir={output}", *words) == 0
    return results_of(output)


def test_a_checkpoint_is_evaluated_and_found_by_retrieval(root: Path, tmp_path: Path) -> None:
    found = [evaluate(root, tmp_path / str(size), f"evaluation.batch_size={size}")["metrics"] for size in (1, 4)]
    assert found[0] == found[1]
    assert found[0]["sort_all_chance"] == pytest.approx(100 / 24) and found[0]["sort_accuracy_chance"] == 25
    permuted = evaluate(root, tmp_path / "permuted", "evaluation.segments=permuted")
    assert permuted["source"].endswith("segments permuted") and permuted["metrics"].keys() == found[0].keys()

    retrieval = {
        **settings(root, tmp_path / "retrieval"),
        "task": "retrieval", "checkpoint": str(root / "whole" / "checkpoint_last"),
        "data": {"root": str(root), "manifest": "train.jsonl", "eval_manifest": "test.jsonl"},
        "objective": {"losses": ["vtc"], "queue_size": 0, "momentum": 0.0, "alpha": 0.0},
        "evaluation": {"rerank": 0},
    }  # fmt: skip
    with (tmp_path / "retrieval.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(retrieval, file)
    assert start("train_retrieval", "--evaluate", "--config", tmp_path / "retrieval.yaml") == 0
    assert results_of(tmp_path / "retrieval")["num_videos"] == STORIES.test


def test_a_folded_model_sorts_as_before(root: Path) -> None:
    task = task_of(root).eval()
    for block in task.model.video_model.blocks:
        torch.nn.init.normal_(block.timeattn.qkv.weight, std=0.2)
    batch = next(task.train_epoch(0, 0))
    ids = task.tokenize(batch["text"])[0].unflatten(0, (2, 4))
    with torch.no_grad():
        plain = task.model.sort(batch["clip"].pixels, ids)
        task.fold_for_inference(torch.float32)
        folded = task.model.sort(batch["clip"].pixels, ids)
    torch.testing.assert_close(folded.order_logits, plain.order_logits, atol=1e-5, rtol=0)
    assert len(set(plain.order_logits.flatten().tolist())) > 4


def test_recomputed_activations_give_the_same_gradients(root: Path) -> None:
    gradients = []
    for setting in ("none", "recompute"):
        torch.manual_seed(0)
        task = task_of(root, train={"activation_checkpointing": setting}).train()
        batch = next(task.train_epoch(0, 0))
        task.begin_step(0, 0.0, [batch])
        sum(task(batch).values()).backward()
        gradients.append({name: p.grad for name, p in task.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_clips_from_memory_are_those_of_the_files(root: Path) -> None:
    batches = []
    for cache in ("none", "memory"):
        video = {"train_sampling": "interval_middle", "augment": False}
        task = task_of(root, data={"cache": cache}, video=video)
        batches.append([batch for epoch in (0, 1) for batch in task.train_epoch(epoch, 0)])
    for read, kept in zip(*batches, strict=True):
        assert read["text"] == kept["text"] and torch.equal(read["clip"].pixels, kept["clip"].pixels)


def test_metrics_by_hand() -> None:
    right = np.array([[True] * 4, [True, True, False, False], [False] * 4, [False, True, True, True]])
    found = sorting_metrics(right)
    assert (found["sort_all"], found["sort_accuracy"]) == (25, 100 * 9 / 16)
    assert [found[f"sort_accuracy_{place}"] for place in range(1, 5)] == [50, 75, 50, 50]


def test_segments_are_permuted_and_never_left_in_order() -> None:
    orders = [segment_order(0, position) for position in range(200)]
    assert len({tuple(order) for order in orders}) == 23, "all orders but the right one"
    pixels = torch.arange(8).view(1, 8, 1, 1, 1).expand(2, 8, 1, 1, 1)
    found = permute_segments(pixels, [np.array([3, 1, 0, 2]), np.array([1, 0, 2, 3])])
    assert found.flatten(1).tolist() == [[6, 7, 2, 3, 0, 1, 4, 5], [2, 3, 0, 1, 4, 5, 6, 7]]


def test_videos_that_only_their_files_show_to_be_too_short_are_named(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "videos", tmp_path / "videos")
    rows = [json.loads(line) for line in (root / "train_speech.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("duration")
        row["words"] = [[0.5 * number, f"word {number}"] for number in range(8)]
    (tmp_path / "train_speech.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"sources": [{"file": "train_speech.jsonl", "kind": "speech"}], "eval_manifest": None, "speech": {}}
    changes: dict[str, Any] = {"data": data, "evaluation": {"batch_size": 8}}
    with pytest.raises(ValueError, match=r"train_0000\d.mp4 \(a video of 4 seconds is too short for 4 clips"):
        next(task_of(tmp_path, **changes).train_epoch(0, 0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sources": [SPEECH], "speech": {}}, r":1: train_00000.mp4 of 4 s is too short for 4 clips"),
        ({"sources": [{"file": "train.jsonl", "kind": "speech"}]}, "train.jsonl:1: unknown key 'caption'"),
        ({"sources": [{"file": "train.jsonl"}, SPEECH]}, "losses of train.jsonl: 'sorting' takes transcripts"),
        ({"sources": [{"file": "train.jsonl"}], "eval_manifest": None, "speech": {}}, "'sorting' needs transcripts"),
        ({"sources": [{"file": "order_pairs.txt", "kind": "speech"}]}, "no folder, and no format for '.txt'"),
    ],
)
def test_data_that_cannot_be_sorted_are_refused(root: Path, data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_of(root, data=data)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"video": {"num_frames": 6}}, "each_clip cannot take equally many of 6 frames"),
        ({"evaluation": {"segments": "permuted"}, "data": {"speech": {"frames": "span"}}}, "permuted takes"),
        ({"data": {"eval_manifest": None}, "evaluation": {"batch_size": 2}}, "has no effect on pre-training without"),
    ],
)
def test_settings_that_cannot_be(root: Path, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(task_of(root, **sections).train_epoch(0, 0))


def test_a_head_of_other_places_is_refused(root: Path) -> None:
    task = task_of(root, model={"num_transcripts": 3})
    batch = next(task.train_epoch(0, 0))
    task.begin_step(0, 0.0, [batch])
    with pytest.raises(ValueError, match="model.num_transcripts: 3 places for 4 transcripts"):
        task(batch)


def test_an_objective_of_pairs_refuses_speech(root: Path) -> None:
    changed = {**settings(root, root / "unused"), "objective": {"losses": ["vtc"], "queue_size": 0}}
    changed["data"]["sources"][1].pop("losses")
    changed["data"].pop("eval_manifest")
    changed.pop("evaluation")
    with pytest.raises(ValueError, match="momentum cannot train on a source of kind speech"):
        from_dict(PretrainConfig, changed, "test")
