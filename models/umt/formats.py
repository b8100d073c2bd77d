"""Whose files start UMT's models: our own checkpoints and UMT's published files."""

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from models.checkpoints import native
from models.checkpoints.stored import OTHER_VOCABULARY, FittedPart, Stored, part_of
from models.umt import weights
from models.umt.bert_file import start_from_bert

OPTIONAL = ("clip_decoder.", "pool_norm.")
"""Parts of a video encoder that some models, and some files, have."""
PRETRAINED = "UMT's file of pre-training (b16_25m.pth, l16_25m.pth), or one fine-tuned for retrieval"


class OwnCheckpoints:
    """Our own checkpoints as the loader asks for them."""

    @staticmethod
    def matches(tensors: Mapping[str, Tensor]) -> bool:
        """Whether these are the tensors of one of our checkpoints."""
        return native.matches(tensors)

    @staticmethod
    def read(tensors: Mapping[str, Tensor]) -> Stored:
        """The weights; of pre-training also the answer decoder that starts from it.

        A converted file of stage 1 has a video encoder alone; the rest of a model then stays fresh.
        """
        stored = native.read(tensors)
        is_alone = {part_of(name) for name in stored.weights} == {"vision_encoder"}
        return weights.with_answer_decoder(replace(stored, rest_is_fresh=is_alone))


class PublishedFiles:
    """UMT's files as the loader asks for them: whose they are, and their weights under our names."""

    @staticmethod
    def matches(tensors: Mapping[str, Tensor]) -> bool:
        """Whether these are the tensors of one of UMT's files."""
        return weights.matches(tensors)

    @staticmethod
    def read(tensors: Mapping[str, Tensor]) -> Stored:
        """The weights; of pre-training also the answer decoder that starts from it."""
        return weights.with_answer_decoder(weights.read(tensors))


class UmtFormats:
    """The `models.checkpoints.load.WeightFormats` of UMT."""

    adapters: tuple[Any, ...] = (OwnCheckpoints, PublishedFiles)
    known_files = "no checkpoint of this project, nor one of UMT's files"
    found_in: Mapping[str, str] = {
        "vision_encoder": "one of UMT's files, of stage 1 or later",
        "text_decoder": "UMT's file of pre-training, or one fine-tuned for question answering",
    }
    otherwise_found_in = PRETRAINED

    def start_text(
        self, model: nn.Module, read: Callable[[], Mapping[str, Tensor]], taken: Container[str]
    ) -> list[str]:
        """Start the text tower from BERT's own file, unless it is among the parts `taken` from a checkpoint.

        `read` reads the file. Returns lines for the log; ValueError if the file is of another BERT.
        """
        return [] if "text_encoder" in taken else [start_from_bert(model, read())]

    def fit_part(self, part: str, found: dict[str, Tensor], own: dict[str, Tensor]) -> FittedPart:
        """The weights as they are: positions are computed, and nothing else depends on the video's size.

        Of the video encoder, heads that learn from a teacher are left where the model has none, and so is a norm of
        pooling; both stay fresh where only the model has them.
        """
        if part != "vision_encoder":
            return FittedPart(found)
        taken, left = {}, []
        for name, tensor in found.items():
            if name.startswith(OPTIONAL) and name not in own:
                left.append(name)
            else:
                taken[name] = tensor

        notes = []
        for prefix in OPTIONAL:
            fresh = {name: tensor for name, tensor in own.items() if name.startswith(prefix)}
            if fresh and not any(name.startswith(prefix) for name in found):
                notes.append(f"{prefix.removesuffix('.')} is not in the file and keeps its fresh weights")
                taken |= fresh
        return FittedPart(taken, notes, {"this model has no such part": left} if left else {})

    def remedy(self, name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
        """What to do if the vocabularies differ."""
        differ = name.endswith("word_embeddings.weight") and shape[0] != wanted[0]
        return OTHER_VOCABULARY if differ else ""


FORMATS = UmtFormats()
