"""STOA-VLP's model for each task, made from a configuration."""

from typing import Any

from configs.fusion import FusionObjectiveConfig
from configs.models.stoa import StoaConfig
from configs.schema import TaskConfig
from models.stoa.sizes import sizes_of
from models.stoa.task_model import TaskModel


def build_model(config: TaskConfig, tokenizer: Any) -> TaskModel:
    """The configured task's model with fresh weights."""
    assert isinstance(config.model, StoaConfig)
    objective = config.objective
    if config.task in ("pretrain", "retrieval") and not isinstance(objective, FusionObjectiveConfig):
        raise ValueError("objective.name: stoa is trained on pairs by fusion; set objective.name=fusion")
    if config.train.compile:
        raise ValueError("train.compile: is not to be had with stoa; set it to false")
    if config.train.activation_checkpointing == "offload":
        raise ValueError("train.activation_checkpointing: offload is not to be had with stoa; use recompute")

    model = TaskModel(
        sizes_of(config.model, config.video),
        isinstance(objective, FusionObjectiveConfig) and objective.reference_form,
        config.video.pixel_mean,
        config.video.pixel_std,
    )
    recompute = config.train.activation_checkpointing == "recompute"
    model.visual.transformer.recompute = model.text.transformer.recompute = recompute
    return model
