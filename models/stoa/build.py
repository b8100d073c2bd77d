"""STOA-VLP's model for each task, made from a configuration."""

from typing import Any

import torch
from torch import nn

from configs.fusion import FusionObjectiveConfig
from configs.models.stoa import StoaConfig
from configs.schema import CaptionConfig, TaskConfig, VqaConfig
from models.stoa.downstream import AnsweringModel, CaptionModel, ChoosingModel
from models.stoa.sizes import sizes_of
from models.stoa.task_model import TaskModel

SCRATCH = {
    "text.token_embedding.weight": 0.5,
    "text.positional_embedding": 0.02,
    "fusion.positional_embedding": 0.5,
    "object_frame_pos_emb": 0.05,
    "visual.object_encoder.box_categories": 0.1,
}
"""Standard deviations of embeddings with `model.init: scratch`.

Places in texts and in time stay small beside words and objects: alignment would pair the first object with some noun
that comes first or last, whatever it shows.
"""
CLIP_WORDS = 0.1
OBJECT_GAIN = 2.0
"""What weights of the object encoder's layers for appearance are multiplied by, so that it outweighs place and time."""


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
    if isinstance(objective, FusionObjectiveConfig):
        model.end_is_candidate = objective.end_is_candidate
    if config.model.init == "scratch":
        enlarge_embeddings(model)
    recompute = config.train.activation_checkpointing == "recompute"
    model.visual.transformer.recompute = model.text.transformer.recompute = recompute
    return model


def _model_of(config: TaskConfig, model: StoaConfig, tokenizer: Any) -> TaskModel:
    objective, sizes = config.objective, sizes_of(model, config.video, config.aggregation)
    reference_form = isinstance(objective, FusionObjectiveConfig) and objective.reference_form
    settings = (sizes, reference_form, config.video.pixel_mean, config.video.pixel_std)

    if isinstance(config, VqaConfig):
        if config.evaluation.inference == "generate":
            raise ValueError("evaluation.inference: stoa predicts how an answer begins and writes none; set it to rank")
        return AnsweringModel(*settings, label_smoothing=config.objective.label_smoothing)

    if isinstance(config, CaptionConfig):
        ends = {"start_id": tokenizer.start_id, "end_id": tokenizer.end_id}
        return CaptionModel(*settings, label_smoothing=config.objective.label_smoothing, **ends)

    if config.task == "choice" and reference_form:
        if model.reads_objects:
            raise ValueError(
                "objective.reference_form: the published multiple choice reads no objects; set model.objects=none and "
                "data.objects=null, or leave it out"
            )
        return ChoosingModel(*settings)
    return TaskModel(*settings)


@torch.no_grad()
def enlarge_embeddings(model: TaskModel) -> None:
    """Draw embeddings at the scale of what blocks add to them.

    At CLIP's scale a narrow model trained from nothing loses words and places beneath what its first blocks write.
    """
    parameters = dict(model.named_parameters())
    for name, deviation in SCRATCH.items():
        if name in parameters:
            nn.init.normal_(parameters[name], std=deviation)
    if model.visual.objects != "none":
        for parameter in model.visual.object_encoder.patch_to_d.parameters():
            parameter.mul_(OBJECT_GAIN)
    # The table of words is also the last layer, whose logits should begin no larger for that.
    model.fusion_proj.mul_(CLIP_WORDS / SCRATCH["text.token_embedding.weight"])
