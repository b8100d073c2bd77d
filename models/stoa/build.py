"""STOA-VLP's model for each task, made from a configuration."""

from typing import Any

from configs.fusion import FusionObjectiveConfig
from configs.models.stoa import StoaConfig
from configs.schema import CaptionConfig, TaskConfig, VqaConfig
from models.stoa.downstream import AnsweringModel, CaptionModel
from models.stoa.sizes import sizes_of
from models.stoa.task_model import TaskModel


def build_model(config: TaskConfig, tokenizer: Any) -> TaskModel:
    """The configured task's model with fresh weights."""
    assert isinstance(config.model, StoaConfig)
    objective = config.objective
    if config.task in ("pretrain", "retrieval", "choice") and not isinstance(objective, FusionObjectiveConfig):
        raise ValueError("objective.name: stoa is trained on pairs by fusion; set objective.name=fusion")
    if config.train.compile:
        raise ValueError("train.compile: is not to be had with stoa; set it to false")
    if config.train.activation_checkpointing == "offload":
        raise ValueError("train.activation_checkpointing: offload is not to be had with stoa; use recompute")

    model = _model_of(config, config.model, tokenizer)
    recompute = config.train.activation_checkpointing == "recompute"
    model.visual.transformer.recompute = model.text.transformer.recompute = recompute
    return model


def _model_of(config: TaskConfig, model: StoaConfig, tokenizer: Any) -> TaskModel:
    objective, sizes = config.objective, sizes_of(model, config.video)
    reference_form = isinstance(objective, FusionObjectiveConfig) and objective.reference_form
    settings = (sizes, reference_form, config.video.pixel_mean, config.video.pixel_std)
    if isinstance(config, VqaConfig):
        if config.evaluation.inference == "generate":
            raise ValueError("evaluation.inference: stoa predicts how an answer begins and writes none; set it to rank")
        return AnsweringModel(*settings, label_smoothing=config.objective.label_smoothing)
    if isinstance(config, CaptionConfig):
        ends = {"start_id": tokenizer.start_id, "end_id": tokenizer.end_id}
        return CaptionModel(*settings, label_smoothing=config.objective.label_smoothing, **ends)
    return TaskModel(*settings)
