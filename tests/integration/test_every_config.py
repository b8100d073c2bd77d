"""Every configuration in the repository: its model at full size without memory, and a step of a small one on its data.

STOA-VLP's, which need boxes, are in test_stoa_configs.py.
The model is built by the code the tasks use. The step goes through task and engine, on files in the format that the
configuration reads.
"""

import json
import math
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file
from torch import nn

from configs.load import load_any
from configs.schema import CONFIG_CLASSES, DataConfig, OptimConfig
from engine.random_state import seed_everything
from models.parts.clip.image_tower import ImageTower
from models.parts.clip.sizes import ImageTowerSizes
from models.parts.momentum import MomentumTwin
from models.parts.tokenizer import make_tokenizer
from models.tvts.sizes import TVTS_PUBLISHED
from tasks.build import build_model
from tasks.caption import CaptionTask
from tasks.choice import ChoiceTask
from tasks.pretrain import PretrainTask
from tasks.recognition import RecognitionTask
from tasks.retrieval import RetrievalTask
from tasks.vqa import VqaTask
from tests.integration.runs import BASE, ROOT
from tests.integration.tiny_datasets import NUM_VIDEOS, write_dataset
from tests.tiny_runs import trainer as make_trainer

CONFIGS = sorted(
    path for path in (ROOT / "configs").rglob("*.yaml")
    if not path.stem.startswith(("base", "recipe_", "stoa_"))
    and not {"comparison", "stoa"} & {path.parent.name, path.parent.parent.name}
)  # fmt: skip
TASKS: dict[str, Any] = {
    "pretrain": PretrainTask, "retrieval": RetrievalTask, "vqa": VqaTask, "caption": CaptionTask,
    "recognition": RecognitionTask, "choice": ChoiceTask,
}  # fmt: skip
LOSSES = {"pretrain": {"vtc", "vtm", "cap"}, "retrieval": {"vtc", "vtm"}, "vqa": {"vqa"}, "caption": {"cap"}}
LOSSES["recognition"] = {"classes"}
# Parameters of a ViT-B/16 and a ViT-L/16 without a classifier, as timm counts them, by width; and those of BERT-base
# with TESTA's vocabulary, but for the keys and values of its attention to videos.
IMAGE_ENCODER = {768: 85_798_656, 1024: 303_301_632}
PROJECTION, NORM = 768 * 768 + 768, 2 * 768
BERT_LAYER = 6 * PROJECTION + 2 * NORM + (768 * 3072 + 3072) + (3072 * 768 + 768) + NORM
TEXT_ENCODER = (30524 + 512) * 768 + NORM + 12 * BERT_LAYER
NOTHING_TO_A_MODEL: dict[str, Any] = {
    "optim": OptimConfig(lr=1.0), "checkpoint": None, "output_dir": None
}  # fmt: skip
SMALL = {
    "checkpoint": None, "video.num_frames": 4, "video.image_size": 32, "model.depth": 2, "model.width": 32,
    "model.heads": 2, "model.text.depth": 1, "train.batch_size": NUM_VIDEOS, "train.max_epochs": 1, "train.workers": 0,
}  # fmt: skip


SMALL_TVTS = {
    "checkpoint": None, "video.num_frames": 4, "video.image_size": 32, "model.depth": 2,
    "model.width": 24, "model.heads": 2, "model.patch_size": 8, "model.embed_dim": 16, "model.sort_heads": 2,
    "model.text.tokenizer": "from_data", "model.text.vocab_size": 560, "model.text.depth": 2, "model.text.width": 16,
    "model.text.heads": 2, "model.text.trained_blocks": 1, "train.batch_size": NUM_VIDEOS, "train.max_epochs": 1,
    "train.workers": 0,
}  # fmt: skip
VIDEO_PART = {"testa": "visual_encoder", "umt": "vision_encoder", "tvts": "video_model"}


SMALL_UMT_TEXT = {
    "model.text.tokenizer": "from_data", "model.text.vocab_size": 200, "model.text.weights": None,
    "model.text.depth": 2, "model.text.width": 32, "model.text.heads": 2, "model.text.intermediate": 32,
    "model.text.fusion_layer": 1, "model.text.max_positions": 64,
}  # fmt: skip


def write_umt_teacher(root: Path) -> dict[str, Any]:
    """A CLIP image tower of two blocks in a file, and the settings that name it."""
    root.mkdir(parents=True, exist_ok=True)
    tower = ImageTower(ImageTowerSizes(32, 2, 2, 16, 32, 8))
    save_file({f"visual.{name}": tensor for name, tensor in tower.state_dict().items()}, root / "clip.safetensors")
    settings = {"weights": str(root / "clip.safetensors"), "image_size": 32, "patch_size": 16, "width": 8, "blocks": 2}
    return {f"objective.teacher.{name}": value for name, value in settings.items()}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def flattened(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in section.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def small(path: Path, root: Path) -> Any:
    """The configuration with the model and input of `debug/base.yaml`, smaller still, and data in `root`."""
    config = load_any(CONFIG_CLASSES, path, [])
    settings: dict[str, Any] = {**flattened(YAML(typ="safe", pure=True).load(BASE)), **SMALL}
    if config.model.name == "tvts":
        settings = {**SMALL_TVTS}
        if config.video.fit == "crop":
            settings["video.resize"] = 38
    if config.model.name == "umt":
        settings = {**SMALL, **SMALL_UMT_TEXT}
        if "uta" in getattr(config.objective, "losses", ()):
            settings |= write_umt_teacher(root)
    settings |= {"data.root": str(root), "output_dir": str(root / "run")}
    for axis, most in (("frames", 1), ("patches", 1), ("tokens", 3)):
        amount = getattr(config.aggregation, f"{axis}_per_block")
        if amount:
            settings[f"aggregation.{axis}_per_block"] = min(max(amount) if isinstance(amount, tuple) else amount, most)
    if config.optim.warmup_steps:
        settings["optim.warmup_steps"] = 1
    if any(source.batch_size for source in config.data.sources):
        settings["data.sources"] = [
            {name: value for name, value in asdict(source).items() if value is not None and name != "batch_size"}
            for source in config.data.sources
        ]
    if config.optim.milestones:
        settings |= {"optim.schedule": "cosine", "optim.decay_rate": None, "optim.milestones": []}
    if hasattr(config.objective, "queue_size"):
        settings["objective.queue_size"] = min(config.objective.queue_size, 8)
    return load_any(CONFIG_CLASSES, path, [f"{key}={json.dumps(value)}" for key, value in settings.items()])


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@cache  # many files differ in their data alone
def build_in_full(config: Any, is_small: bool) -> None:
    """Build the model, and the twin where the task has one, without memory; check their sizes."""
    with torch.device("meta"):
        model = build_model(config, make_tokenizer(["a word"], vocab_size=100))
        # UMT's embeddings have no twin: it copies no part of the model.
        has_twin = config.task in ("pretrain", "retrieval") and model.twinned
        twin = MomentumTwin(model, 0.995) if has_twin else None
    part = VIDEO_PART[config.model.name]
    assert all(parameter.is_meta for parameter in model.parameters())
    if not is_small and config.model.name == "testa":
        assert_of_full_size(config, model)
    if not is_small and config.model.name == "tvts":
        assert model.sizes in TVTS_PUBLISHED.values()
    assert twin is None or num_parameters(getattr(twin, f"{part}_m")) == num_parameters(getattr(model, part))


@pytest.mark.usefixtures("without_java")
@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_model_of_full_size_and_a_step_of_a_small_one(path: Path, tmp_path: Path) -> None:
    config = load_any(CONFIG_CLASSES, path, [])
    # What pre-training reads has to fit its losses.
    data = config.data if config.task == "pretrain" else DataConfig(root="data")
    nothing = {"data": data, **NOTHING_TO_A_MODEL}
    if config.task == "recognition":
        # Its data have to be of classes.
        nothing["data"] = DataConfig(root="data", dataset="labelled")
        nothing["optim"] = type(config).__dataclass_fields__["optim"].default_factory()
    build_in_full(replace(config, **nothing), is_small=path.parent.name == "debug")

    config = small(path, tmp_path)
    write_dataset(config.data, tmp_path, questions=config.task == "vqa")
    seed_everything(config.seed)
    task = TASKS[config.task](config, torch.device("cpu")).train()
    if config.data.dataset == "ssv2_mc" or not config.trains_in_steps:
        assert_evaluated(task)
        return
    trainer = make_trainer(task, config)
    before = {name: parameter.detach().clone() for name, parameter in task.named_parameters()}
    trainer.train_step(task.train_epoch(0, 0))
    trainer.report()
    trainer.log.close()
    assert trainer.total_steps == task.steps_per_epoch
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    wanted = set(config.objective.losses) if hasattr(config.objective, "losses") else LOSSES[config.task]
    assert {name.removeprefix("loss_") for name in line if name.startswith("loss_")} == wanted
    assert all(math.isfinite(value) and value > 0 for name, value in line.items() if name.startswith("loss"))
    assert len(trainer.step.optimizer.state) == len(trainer.step.trainable), "each has had a gradient"
    moved = {name for name, parameter in task.named_parameters() if not torch.equal(before[name], parameter)}
    if line["lr"] > 0:
        block = {"tvts": "transformer.resblocks.0.", "umt": "encoder.blocks.0."}.get(config.model.name, "blocks.0.")
        assert any(name.startswith(f"model.{VIDEO_PART[config.model.name]}.{block}") for name in moved)


def assert_evaluated(task: RecognitionTask) -> None:
    """A probe is fitted, and the test set is evaluated by it, or by the options of its videos."""
    with torch.no_grad():
        if not task.config.trains_in_steps:
            task.eval().fit()
        result = task.eval().evaluate(final=True)
    assert 0 <= result["metrics"]["top1"] <= result["metrics"]["top5"] <= 100
    assert result["num_classes"] == (2 if task.head is not None else 174)


def assert_of_full_size(config: Any, model: nn.Module) -> None:
    """ViT-B/16 or ViT-L/16, and BERT-base, by their numbers of parameters.

    The divided form of a ViT has besides, in each block, a norm, qkv and two projections.
    """
    width, depth, frames = config.model.width, config.model.depth, config.video.num_frames
    expected = IMAGE_ENCODER[width]
    if config.model.attention != "space":
        expected += frames * width
    if config.model.attention == "divided":
        expected += depth * (2 * width + 5 * (width * width + width))
        expected += depth * frames if config.model.temporal_scaling else 0
    assert num_parameters(model.visual_encoder) == expected
    if config.task != "caption":
        assert num_parameters(model.text_encoder) == TEXT_ENCODER + 12 * 2 * (width * 768 + 768)
