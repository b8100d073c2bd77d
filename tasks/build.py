"""How a task's model comes about: which parts it has, its tokenizer, and the weights it starts from."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from configs.schema import ObjectiveConfig, TaskConfig
from engine import hub
from engine.checkpoint_folder import OPTIMIZER, read_weights
from engine.hub import local_path, tokenizer_folder
from models.checkpoints.load import load_into
from models.parts.momentum import MomentumTwin
from models.parts.tokenizer import FROM_DATA, TextTokenizer, load_tokenizer, make_tokenizer
from models.testa.model import VisionLanguageModel

logger = logging.getLogger(__name__)
TOKENIZER = "tokenizer"
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
    "vqa": Parts(text_encoder=True, heads=False, decoder="separate", decoder_context="question"),
    "caption": Parts(text_encoder=False, heads=False, decoder="separate"),
}
"""The parts of each task's model, by `task` of the configuration; pre-training without `cap` has no decoder."""


def build_model(config: TaskConfig, tokenizer: TextTokenizer) -> VisionLanguageModel:
    """The configured task's model with fresh weights."""
    parts, objective = PARTS[config.task], config.objective
    contrasting = objective if isinstance(objective, ObjectiveConfig) else None
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
        label_smoothing=objective.label_smoothing,
        temperature=TEMPERATURE if contrasting is None else contrasting.temperature,
        activation_checkpointing=config.train.activation_checkpointing,
    )


def build_tokenizer(config: TaskConfig, texts: Callable[[], Iterable[str]]) -> TextTokenizer:
    """The checkpoint's own tokenizer where it has one, else the configured one; `texts` are read to make one."""
    text = config.model.text
    own = beside_checkpoint(config, TOKENIZER)
    if own is not None:
        tokenizer = load_tokenizer(str(own))
    elif text.tokenizer == FROM_DATA:
        tokenizer = make_tokenizer(texts(), text.vocab_size)
    else:
        tokenizer = load_tokenizer(str(tokenizer_folder(text.tokenizer)))
    if len(tokenizer) > text.vocab_size:
        raise ValueError(
            f"model.text.vocab_size: {text.vocab_size} rows for a vocabulary of {len(tokenizer)}; raise it to that"
        )
    return tokenizer


def beside_checkpoint(config: TaskConfig, name: str) -> Path | None:
    """The file or folder that an earlier run wrote beside the weights of `checkpoint`; None if there is none."""
    if config.checkpoint is None:
        return None
    return hub.beside_checkpoint(config.checkpoint, name)


def load_checkpoint(config: TaskConfig, model: VisionLanguageModel, twin: MomentumTwin | None) -> None:
    """Put the weights of `checkpoint`, if one is given, into the model and its twin, and say what was taken.

    Nothing is said of a run's own checkpoint: whatever is left here, such as its queue, the engine restores.
    """
    if config.checkpoint is None:
        return
    path = local_path(config.checkpoint)
    report = load_into(model, read_weights(path), config.checkpoint, twin=twin)
    resumes = config.output_dir is not None and path.parent.parent == Path(config.output_dir)
    if not (resumes and (path.parent / OPTIMIZER).exists()):
        for line in report.lines():
            logger.info("%s", line)
