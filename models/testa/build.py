"""TESTA's model for each task: its parts, and how to build it from a configuration."""

from dataclasses import dataclass
from typing import Any, Literal

from configs.models.testa import TestaConfig
from configs.schema import ObjectiveConfig, TaskConfig
from configs.training import TextObjectiveConfig
from models.testa.model import VisionLanguageModel

TEMPERATURE = 0.07


@dataclass(frozen=True)
class Parts:
    """What a task's model has besides the video encoder; see `VisionLanguageModel`."""

    text_encoder: bool
    heads: bool
    decoder: Literal["none", "tied", "separate"]
    decoder_context: Literal["video", "question"] = "video"


PARTS: dict[str, Parts] = {
    "pretrain": Parts(text_encoder=True, heads=True, decoder="tied"),
    "retrieval": Parts(text_encoder=True, heads=True, decoder="none"),
    "choice": Parts(text_encoder=True, heads=True, decoder="none"),
    "recognition": Parts(text_encoder=True, heads=True, decoder="none"),
    "vqa": Parts(text_encoder=True, heads=False, decoder="separate", decoder_context="question"),
    "caption": Parts(text_encoder=False, heads=False, decoder="separate"),
}
"""The parts of each task's model, by `task` of the configuration; pre-training without `cap` has no decoder."""


def build_model(config: TaskConfig, tokenizer: Any) -> VisionLanguageModel:
    """Build the configured task's model with fresh weights; uses only the special ids of the tokenizer."""
    assert isinstance(config.model, TestaConfig)
    parts, objective = PARTS[config.task], config.objective
    contrasting = objective if isinstance(objective, ObjectiveConfig) else None
    # Objectives of other systems have no label smoothing.
    smoothing = objective.label_smoothing if isinstance(objective, ObjectiveConfig | TextObjectiveConfig) else 0.0
    without_decoder = contrasting is not None and "cap" not in contrasting.losses

    return VisionLanguageModel(
        config.model,
        config.video,
        config.aggregation,
        enc_token_id=tokenizer.enc_id,
        dec_token_id=tokenizer.dec_id,
        sep_token_id=tokenizer.sep_id,
        text_encoder=parts.text_encoder,
        heads=parts.heads,
        decoder="none" if without_decoder else parts.decoder,
        decoder_context=parts.decoder_context,
        label_smoothing=smoothing,
        temperature=TEMPERATURE if contrasting is None else contrasting.temperature,
        activation_checkpointing=config.train.activation_checkpointing,
    )
