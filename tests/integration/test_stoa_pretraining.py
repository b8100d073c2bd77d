"""STOA-VLP's pre-training with boxes and tags by the entry script: it resumes to the bit, and two ranks equal one."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from configs.load import from_dict
from configs.schema import PretrainConfig
from datasets.objects.detections import Detection, choose_boxes
from datasets.objects.store import ObjectSettings, StoreWriter
from datasets.tags import save_tags
from engine.distributed import all_reduce_sum, world_size
from models.parts.clip.tokenizer import make_clip_tokenizer
from tasks.pretrain import PretrainTask
from tests.gloo import run_ranks
from tests.integration.runs import losses_of, start
from tests.models.stoa.tiny import randomise
from tests.tiny_runs import FRAMES, IMAGE, caption, write_data

VIDEOS, PER_FRAME = 9, 2
VOCABULARY = 700
MODEL: dict[str, Any] = {
    "name": "stoa", "depth": 3, "width": 24, "heads": 2, "patch_size": 8, "embed_dim": 16, "num_actions": 2,
    "objects_per_frame": PER_FRAME, "fusion_depth": 2, "fusion_heads": 2, "fusion_positions": 40, "max_words": 20,
    "dropout": 0.0,
    "text": {
        "tokenizer": "from_data", "vocab_size": VOCABULARY, "max_positions": 24, "depth": 2, "width": 16, "heads": 2,
    },
}  # fmt: skip


def settings(root: Path, **sections: Any) -> dict[str, Any]:
    found = {
        "task": "pretrain",
        "model": MODEL,
        "video": {"num_frames": FRAMES, "image_size": IMAGE},
        "data": {
            "root": str(root), "manifest": "captions.jsonl", "clean_captions": False,
            "objects": str(root / "clips.objects"), "tags": str(root / "captions.tags"),
        },
        "objective": {"name": "fusion", "losses": ["vtc", "vtm", "mlm", "plm", "align"], "vtc_epochs": 1},
        "optim": {
            "lr": 1e-3, "optimizer": "bert_adam", "schedule": "cosine_of_run", "warmup_ratio": 0.2, "clip_norm": 1.0,
            "clip_each_norm": 1.0, "decay": "all_but_biases",
        },
        "train": {
            "batch_size": 4, "max_epochs": 3, "workers": 0, "log_every": 1, "save_every": 1, "keep_checkpoints": 9,
        },
        "output_dir": str(root / "run"),
    }  # fmt: skip
    return {name: {**value, **sections[name]} if name in sections else value for name, value in found.items()}


def write_config(root: Path, folder: Path, **sections: Any) -> Path:
    path = folder.with_suffix(".yaml")
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump({**settings(root, **sections), "output_dir": str(folder)}, file)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos with captions, boxes (none on some frames) and tags."""
    root = write_data(tmp_path_factory.mktemp("data"), [1] * VIDEOS)
    rng = np.random.default_rng(0)
    made_of = ObjectSettings(FRAMES, PER_FRAME, IMAGE, "squash", "uniform", "a test", {"thing": 1, "other": 2})
    writer = StoreWriter(root / "clips.objects", [f"{video}.mp4" for video in range(VIDEOS)], made_of)
    for video in range(VIDEOS):
        writer.put(video, choose_boxes([_detections(rng, video % 3) for _ in range(FRAMES)], PER_FRAME), IMAGE)
    writer.finish()

    captions = [caption(video) for video in range(VIDEOS)]
    tokenizer = make_clip_tokenizer(captions, VOCABULARY)
    ids, mask = tokenizer(captions)
    save_tags(
        root / "captions.tags",
        {text: rng.integers(0, 3, int(row.sum()) - 2) for text, row in zip(captions, mask, strict=True)},
    )
    return root


def _detections(rng: np.random.Generator, count: int) -> Sequence[Detection]:
    corners = rng.uniform(0, 16, (count, 2))
    return [Detection(number + 1, (x, y, x + 12.0, y + 3.0 + 9 * number), 0.9) for number, (x, y) in enumerate(corners)]


def test_a_run_that_ended_early_resumes_to_the_bit(root: Path, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert start("pretrain", "--config", write_config(root, whole)) == 0
    losses = losses_of(whole)
    assert len(losses) == 6
    # Contrast is taken in the first epoch alone, and every loss moves.
    assert ["loss_vtc" in step for step in losses] == [True] * 2 + [False] * 4
    for name in ("loss_vtm", "loss_mlm", "loss_plm", "loss_align"):
        assert len({step[name] for step in losses}) == 6

    # As a run killed after its third step, in the middle of an epoch, leaves its folder.
    shutil.copytree(whole, resumed)
    for folder in resumed.glob("checkpoint_*"):
        if folder.name != "checkpoint_step_00000003":
            shutil.rmtree(folder)
    assert start("pretrain", "--config", write_config(root, resumed)) == 0
    assert losses_of(resumed) == losses
    for name in ("model.safetensors", "optimizer.safetensors"):
        expected, found = (load_file(folder / "checkpoint_last" / name) for folder in (whole, resumed))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected), name


def train_step(root: Path) -> dict[str, Any]:
    """Losses and gradients of this process' half of one batch, texts and boxes as the loaders give them."""
    torch.manual_seed(0)
    task = PretrainTask(from_dict(PretrainConfig, settings(root, train={"workers": 0}), "test"), torch.device("cpu"))
    randomise(task.model)
    # Contrast ends after the first epoch, and DDP has to know that then some weights have no gradient.
    assert task.losses_differ
    model = task if world_size() == 1 else DistributedDataParallel(task)
    batch = next(task.train_epoch(0, 0))
    task.begin_step(0, 0.0, [batch])
    losses = model(batch)
    torch.stack(list(losses.values())).sum().backward()
    found = {name: all_reduce_sum(loss.detach()) / world_size() for name, loss in losses.items()}
    gradients = {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}
    return {**found, **gradients}


def test_two_ranks_equal_one(root: Path) -> None:
    alone = train_step(root)
    assert {"vtc", "vtm", "mlm", "plm", "align"} <= alone.keys() and len(alone) > 100
    for found in run_ranks(2, train_step, root):
        assert found.keys() == alone.keys()
        for name, expected in alone.items():
            torch.testing.assert_close(
                found[name], expected, rtol=1e-4, atol=2e-5, msg=lambda text, of=name: f"{of}: {text}"
            )


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"tags": None}}, "scripts.tag_captions"),
        ({"data": {"objects": None}}, "scripts.prepare_objects"),
        ({"video": {"num_frames": 3}}, "num_frames is 4 there and 3 here"),
        ({"model": {"objects_per_frame": 3}}, "objects_per_frame is 2 there and 3 here"),
        ({"model": {"text": {**MODEL["text"], "vocab_size": 560}}}, "tag it with"),
    ],
)
def test_what_does_not_fit_is_refused(
    root: Path, tmp_path: Path, sections: dict[str, Any], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert start("pretrain", "--config", write_config(root, tmp_path / "refused", **sections)) == 2
    assert message in capfd.readouterr().err
