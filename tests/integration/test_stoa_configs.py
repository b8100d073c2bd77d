"""STOA-VLP's configurations: the model at full size without memory, and a step of a small one on files of each format.

Boxes, and where training reads them tags, lie beside the videos.
"""

import json
import math
import pickle
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.load import load_any
from configs.schema import CONFIG_CLASSES, TASKS, RunConfig
from datasets.objects.detections import Detection, choose_boxes
from datasets.objects.store import ObjectSettings, StoreWriter
from datasets.tags import NOUN, OTHER, VERB, save_tags
from engine.loop import evaluate
from engine.random_state import seed_everything
from models.stoa.sizes import StoaSizes, sizes_of
from models.systems import piece
from tasks.build import build_model
from tests.integration.runs import ROOT
from tests.integration.tiny_datasets import NUM_VIDEOS, write_dataset
from tests.tiny_runs import trainer as make_trainer

CONFIGS = sorted(
    path
    for path in [*(ROOT / "configs" / "stoa").rglob("*.yaml"), *(ROOT / "configs" / "debug").glob("stoa_*.yaml")]
    if not path.stem.startswith("base")
)
SMALL = {
    "checkpoint": None, "video.num_frames": 4, "video.image_size": 32, "model.depth": 3, "model.width": 16,
    "model.heads": 2, "model.patch_size": 8, "model.joint_depth": 1, "model.objects_per_frame": 2,
    "model.embed_dim": 8, "model.fusion_depth": 2, "model.fusion_heads": 2, "model.fusion_positions": 100,
    "model.text.tokenizer": "from_data", "model.text.vocab_size": 600, "model.text.depth": 2, "model.text.width": 16,
    "model.text.heads": 2, "train.batch_size": NUM_VIDEOS, "train.max_epochs": 1, "train.workers": 0,
}  # fmt: skip


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def small(path: Path, root: Path) -> RunConfig:
    config = load_any(CONFIG_CLASSES, path, [])
    settings: dict[str, Any] = {**SMALL, "data.root": str(root), "output_dir": str(root / "run")}
    if config.video.fit == "crop":
        settings["video.resize"] = 32
    if config.optim.warmup_steps:
        settings["optim.warmup_steps"] = 1
    for name in ("objects", "tags"):
        if getattr(config.data, name) is not None:
            settings[f"data.{name}"] = str(root / f"clips.{name}")
    return load_any(CONFIG_CLASSES, path, [f"{key}={json.dumps(value)}" for key, value in settings.items()])


def write_boxes(config: RunConfig, root: Path) -> None:
    """Boxes of every video below `root`, of one or two classes on each frame."""
    assert config.data.objects is not None
    video, rng = config.video, np.random.default_rng(0)
    names = sorted({path.stem for path in (root / "videos").rglob("*") if path.is_file()})
    made_for = ObjectSettings(
        video.num_frames, 2, video.image_size, video.fit, video.train_sampling, "a test", {"thing": 1, "other": 2}
    )
    writer = StoreWriter(Path(config.data.objects), names, made_for)
    for row in range(len(names)):
        frames = []
        for frame in range(video.num_frames):
            left, top = rng.uniform(0, 12, 2)
            frames.append([Detection(1 + frame % 2, (left, top, left + 16, top + 16), 0.9)])
        writer.put(row, choose_boxes(frames, 2), video.image_size)
    writer.finish()


def take_step(config: RunConfig, root: Path) -> set[str]:
    """A step by task and engine, and an evaluation of what comes of it; the names of the losses."""
    seed_everything(config.seed)
    task = pkgutil.resolve_name(TASKS[config.task].task)(config, torch.device("cpu")).train()
    if config.data.tags is not None:
        texts = task.training_texts()
        lengths = {text: int(task.tokenize([text])[1].sum()) - 2 for text in texts}
        tags = {text: [(NOUN, VERB, OTHER)[place % 3] for place in range(length)] for text, length in lengths.items()}
        save_tags(Path(config.data.tags), tags)
    trainer = make_trainer(task, config)
    trainer.train_step(task.train_epoch(0, 0))
    trainer.report()
    trainer.log.close()
    line = json.loads((root / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    losses = {name.removeprefix("loss_"): value for name, value in line.items() if name.startswith("loss_")}
    assert all(math.isfinite(value) and value > 0 for value in losses.values())
    assert len(trainer.step.optimizer.state) == len(trainer.step.trainable), "each has had a gradient"

    if config.is_evaluated and config.task != "pretrain":
        result = evaluate(task, config, torch.device("cpu"), final=True)
        assert result["num_videos"] == NUM_VIDEOS and all(map(math.isfinite, result["metrics"].values()))
        assert "predictions.jsonl" in result["files"]
    return set(losses)


@pytest.mark.usefixtures("without_java")
@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_model_of_full_size_and_a_step_of_a_small_one(path: Path, tmp_path: Path) -> None:
    config = load_any(CONFIG_CLASSES, path, [])
    with torch.device("meta"):
        model = build_model(config, piece("stoa", "tokenizer").make_tokenizer(["a word"], 600))
    assert model.sizes == sizes_of(config.model, config.video)
    if path.parent.name not in ("debug", "choice"):
        published = StoaSizes(max_words=config.model.max_words)
        assert model.sizes == published and published.max_words in (32, 64)

    config = small(path, tmp_path)
    write_dataset(config.data, tmp_path, questions=config.task == "vqa")
    if config.data.objects is not None:
        write_boxes(config, tmp_path)
    losses = take_step(config, tmp_path)
    expected = {"caption": {"cap", "vtc"} if getattr(config.objective, "contrast", False) else {"cap"}, "vqa": {"vqa"}}
    assert losses == expected.get(config.task, set(getattr(config.objective, "losses", ())))


def as_tokens(root: Path) -> None:
    """MSVD's captions as lists of words in a pickle."""
    path = root / "captions_msvd.json"
    captions = {name: [text.split() for text in texts] for name, texts in json.loads(path.read_text()).items()}
    (root / "raw-captions.pkl").write_bytes(pickle.dumps(captions))
    path.unlink()


def as_moments(root: Path) -> None:
    """DiDeMo's descriptions of moments, of which each video has two."""
    for path in root.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        moments = [
            {"video": f"{row['clip_name']}.", "description": text} for row in rows for text in (row["caption"], "x")
        ]
        (root / f"{path.stem}_data.json").write_text(json.dumps(moments))
        path.unlink()


@pytest.mark.usefixtures("without_java")
@pytest.mark.parametrize(
    ("name", "rewrite"), [("caption/msvd", as_tokens), ("retrieval/msvd", as_tokens), ("retrieval/didemo", as_moments)]
)
def test_the_authors_other_files(name: str, rewrite: Callable[[Path], None], tmp_path: Path) -> None:
    config = small(ROOT / "configs" / "stoa" / f"{name}.yaml", tmp_path)
    write_dataset(config.data, tmp_path, questions=False)
    rewrite(tmp_path)
    write_boxes(config, tmp_path)
    assert take_step(config, tmp_path)


@pytest.mark.usefixtures("without_java")
@pytest.mark.parametrize("task", ["caption", "retrieval", "vqa"])
def test_without_objects_a_setting_leaves_them_out(task: str, tmp_path: Path) -> None:
    path = next(path for path in CONFIGS if path.parent.name == task)
    overrides = ["model.objects=none", "data.objects=null"]
    settings = {**SMALL, "video.resize": 32, "data.root": str(tmp_path), "output_dir": str(tmp_path / "run")}
    overrides += [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    config = load_any(CONFIG_CLASSES, path, overrides)
    write_dataset(config.data, tmp_path, questions=task == "vqa")
    assert take_step(config, tmp_path)
