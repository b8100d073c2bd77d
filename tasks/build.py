"""How a task's model comes about: which parts it has, its tokenizer, and the weights it starts from."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import nn

from configs.schema import TaskConfig
from engine.checkpoint_folder import OPTIMIZER, read_weights
from engine.hub import Checkpoint, tokenizer_folder
from models.checkpoints.load import load_into
from models.parts.clip.torchscript import is_torchscript, read_torchscript
from models.parts.momentum import MomentumTwin
from models.parts.tokenizer import FROM_DATA
from models.systems import piece

logger = logging.getLogger(__name__)
TOKENIZER = "tokenizer"


def build_model(config: TaskConfig, tokenizer: Any) -> Any:
    """The configured task's model with fresh weights, of the system that `model.name` says; see `models.protocols`."""
    return piece(config.model.name, "build")(config, tokenizer)


def build_tokenizer(config: TaskConfig, texts: Callable[[], Iterable[str]]) -> Any:
    """The checkpoint's own tokenizer where it has one, else the configured one; `texts` are read to make one."""
    text, kind = config.model.text, piece(config.model.name, "tokenizer")
    own = beside_checkpoint(config, TOKENIZER)
    if own is not None:
        tokenizer = kind.load_tokenizer(str(own))
    elif text.tokenizer == FROM_DATA:
        tokenizer = kind.make_tokenizer(texts(), text.vocab_size)
    else:
        # Files of some kinds are no folder, and not looked for on the hub.
        find = getattr(kind, "vocabulary_path", tokenizer_folder)
        tokenizer = kind.load_tokenizer(str(find(text.tokenizer)))
    if len(tokenizer) > text.vocab_size:
        raise ValueError(
            f"model.text.vocab_size: {text.vocab_size} rows for a vocabulary of {len(tokenizer)}; raise it to that"
        )
    return tokenizer


def beside_checkpoint(config: TaskConfig, name: str) -> Path | None:
    """The file or folder that an earlier run wrote beside the weights of `checkpoint`; None if there is none."""
    if config.checkpoint is None:
        return None
    return Checkpoint.find(config.checkpoint).beside(name)


def load_checkpoint(config: TaskConfig, model: nn.Module, twin: MomentumTwin | None) -> None:
    """Put the weights of `checkpoint`, if one is given, into the model and its twin, and say what was taken.

    Nothing is said of a run's own checkpoint: whatever is left here, such as its queue, the engine restores.
    """
    if config.checkpoint is None:
        return
    path = Checkpoint.find(config.checkpoint).path
    # OpenAI's archives of CLIP, which nothing of ours writes.
    tensors = read_torchscript(path) if path.is_file() and is_torchscript(path) else read_weights(path)
    report = load_into(model, tensors, config.checkpoint, formats=piece(config.model.name, "weights"), twin=twin)
    resumes = config.output_dir is not None and path.parent.parent == Path(config.output_dir)
    if not (resumes and (path.parent / OPTIMIZER).exists()):
        for line in report.lines():
            logger.info("%s", line)
