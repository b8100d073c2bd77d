"""Build a task's model and tokenizer, and load the weights it starts from."""

import logging
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from configs.schema import TaskConfig
from engine.checkpoint_folder import OPTIMIZER, read_weights
from engine.hub import Checkpoint, local_path, tokenizer_folder
from models.checkpoints.load import formats_for, load_into
from models.parts.clip.torchscript import is_torchscript, read_torchscript
from models.parts.momentum import MomentumTwin
from models.parts.tokenizer import FROM_DATA
from models.systems import piece

logger = logging.getLogger(__name__)
TOKENIZER = "tokenizer"


def build_model(config: TaskConfig, tokenizer: Any) -> Any:
    """The task's model with fresh weights, for the system that `model.name` names; see `models.protocols`."""
    return piece(config.model.name, "build")(config, tokenizer)


def build_tokenizer(config: TaskConfig, texts: Callable[[], Iterable[str]]) -> Any:
    """The checkpoint's own tokenizer if it has one, else the configured one, learned from `texts` if need be."""
    text, kind = config.model.text, piece(config.model.name, "tokenizer")

    own = beside_checkpoint(config, TOKENIZER)
    if own is not None:
        tokenizer = kind.load_tokenizer(str(own))
    elif text.tokenizer == FROM_DATA:
        tokenizer = kind.make_tokenizer(texts(), text.vocab_size)
    else:
        # Some vocabularies are a single file, not a folder, and are not looked up on the hub.
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


def read_any_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint folder or file, also of OpenAI's TorchScript archives, of which we write none."""
    return read_torchscript(path) if path.is_file() and is_torchscript(path) else read_weights(path)


def load_checkpoint(config: TaskConfig, model: nn.Module, twin: MomentumTwin | None) -> None:
    """Load the weights of `checkpoint`, if one is given, into the model and its twin, and log what was loaded.

    A text tower that has a file of its own, `model.text.weights`, starts from that if `checkpoint` has none.

    When a run resumes from its own checkpoint nothing is logged: the engine restores what is skipped here, such as the
    queue.
    """
    if config.checkpoint is None:
        _start_text(config, model, taken=())
        return

    path = Checkpoint.find(config.checkpoint).path
    tensors = read_any_weights(path)
    formats = formats_for(piece(config.model.name, "weights"), config.video)
    report = load_into(model, tensors, config.checkpoint, formats=formats, twin=twin)
    _start_text(config, model, report.taken)

    resumes = config.output_dir is not None and path.parent.parent == Path(config.output_dir)
    if not (resumes and (path.parent / OPTIMIZER).exists()):
        for line in report.lines():
            logger.info("%s", line)


def _start_text(config: TaskConfig, model: nn.Module, taken: Container[str]) -> None:
    """Start the text tower from a file of its own, if the configuration names one and it is not among what is taken."""
    source = getattr(config.model.text, "weights", None)
    if source is None:
        return
    try:
        for line in piece(config.model.name, "weights").start_text(
            model, lambda: read_weights(local_path(source)), taken
        ):
            logger.info("weights from %s: %s", source, line)
    except ValueError as error:
        raise ValueError(f"model.text.weights: {source}: {str(error).removeprefix('checkpoint: ')}") from error
