"""UMT's published files: their names, which kind a file is, and what of it a model takes.

Stage 1 is the video encoder alone (`encoder.*`). Stage 2, pre-training, is the whole model with BERT below
`text_encoder.bert.`, its word head and a CLIP teacher. Files fine-tuned for retrieval have `text_encoder.*` without
`bert.` and no word head; those for question answering have no heads of contrast and matching, and an answer decoder.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from configs.models.umt import SplitTextConfig, UMTConfig
from models.checkpoints.stored import Stored, grouped, part_of
from models.umt.model import UMT

Kind = Literal["stage 1", "pre-training", "retrieval", "question answering"]
ENCODER_ALONE = ("encoder.", "pool_norm.", "clip_decoder.")
TEACHER = "clip_teacher"
HEAD_WIDTH = 64
"""Of every published model, in both towers."""
LISTED = 20
POSITION_IDS = ".position_ids"
CROSS_ATTENTION = re.compile(r"text_encoder\.encoder\.layer\.(\d+)\.crossattention\.")

# The parts of a name that differ: pre-training's first, then ours, where words of a text are guessed by a head.
PRETRAINING_NAMES = (("text_encoder.bert.", "text_encoder."), ("text_encoder.cls.predictions.", "mlm_head."))


def kind_of(tensors: Mapping[str, Tensor]) -> Kind | None:
    """Which of the published files these names are from; None if they are not UMT's."""
    if "encoder.patch_embed.proj.weight" in tensors:
        return "stage 1"
    if "vision_encoder.encoder.patch_embed.proj.weight" not in tensors:
        return None
    if any(name.startswith("text_encoder.bert.") for name in tensors):
        return "pre-training"
    return "question answering" if any(name.startswith("text_decoder.") for name in tensors) else "retrieval"


def matches(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of one of UMT's published files."""
    return kind_of(tensors) is not None


def read(tensors: Mapping[str, Tensor]) -> Stored:
    """The weights of a published file under our names; the teacher and counted positions are left, and named.

    `ValueError` if the file is none of UMT's.
    """
    kind = kind_of(tensors)
    if kind is None:
        some = ", ".join(list(tensors)[:3]) or "nothing"
        raise ValueError(f"is none of UMT's files (stage 1, pre-training, retrieval, question answering): holds {some}")

    weights: dict[str, Tensor] = {}
    left: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        if part_of(name) == TEACHER:
            left.setdefault("the teacher is not part of the model", []).append(name)
        elif name.endswith(POSITION_IDS):
            left.setdefault("they are counted, not learned", []).append(name)
        elif kind == "stage 1" and not name.startswith(ENCODER_ALONE):
            left.setdefault("no part of the video encoder", []).append(name)
        else:
            weights[_to_ours(name, kind)] = tensor
    return Stored(f"UMT, {kind}", weights, left, rest_is_fresh=kind == "stage 1")


def with_answer_decoder(stored: Stored) -> Stored:
    """A file of pre-training with the answer decoder that the reference makes of its text encoder; others as is.

    Files of pre-training are those with a head that guesses words.
    """
    fused = [int(match[1]) for name in stored.weights if (match := CROSS_ATTENTION.match(name))]
    if not fused or not any(name.startswith("mlm_head.") for name in stored.weights):
        return stored
    decoder = _decoder_from_encoder(stored.weights, min(fused))
    note = "text_decoder is made of the later layers of text_encoder, its embeddings and its word head"
    return replace(stored, weights={**stored.weights, **decoder}, note=note)


def to_published(tensors: Mapping[str, Tensor], kind: Kind) -> dict[str, Tensor]:
    """The tensors of a model of ours under the names of that kind of file: `read`, the other way round."""
    published: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if kind == "stage 1":
            name = name.removeprefix("vision_encoder.")
        if kind == "pre-training":
            for theirs, ours in reversed(PRETRAINING_NAMES):
                if name.startswith(ours):
                    name = theirs + name.removeprefix(ours)
                    break
        published[name] = tensor
    return published


def config_of(tensors: Mapping[str, Tensor], pooling: Literal["frames", "all"] = "frames") -> UMTConfig:
    """The sizes of a file that `read` has read, which must hold a text encoder; `KeyError` names what it lacks."""
    words = tensors["text_encoder.embeddings.word_embeddings.weight"]
    layers = "text_encoder.encoder.layer."
    fused = [int(match[1]) for name in tensors if (match := CROSS_ATTENTION.match(name))]
    text = SplitTextConfig(
        vocab_size=words.shape[0],
        depth=_count(tensors, layers),
        width=words.shape[1],
        heads=max(1, words.shape[1] // HEAD_WIDTH),
        intermediate=tensors[f"{layers}0.intermediate.dense.weight"].shape[0],
        max_positions=tensors["text_encoder.embeddings.position_embeddings.weight"].shape[0],
        token_types=tensors["text_encoder.embeddings.token_type_embeddings.weight"].shape[0],
        fusion_layer=min(fused, default=0),
    )
    return vision_config_of(tensors, text, pooling)


def vision_config_of(
    tensors: Mapping[str, Tensor], text: SplitTextConfig, pooling: Literal["frames", "all"] = "frames"
) -> UMTConfig:
    """The sizes of a file's video encoder, beside a text encoder of known sizes."""
    embedding = tensors["vision_encoder.encoder.patch_embed.proj.weight"]
    width, projection = embedding.shape[0], tensors.get("vision_proj.weight")
    return UMTConfig(
        depth=_count(tensors, "vision_encoder.encoder.blocks."),
        width=width,
        heads=max(1, width // HEAD_WIDTH),
        patch_size=embedding.shape[-1],
        mlp_ratio=tensors["vision_encoder.encoder.blocks.0.mlp.fc1.weight"].shape[0] / width,
        pooling=pooling,
        embed_dim=UMTConfig.embed_dim if projection is None else projection.shape[0],
        text=text,
    )


@dataclass(frozen=True)
class Fitted:
    """The tensors that a model takes from a file, by its names, and what a user has to know of the others."""

    weights: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)


def fit(model: UMT, tensors: Mapping[str, Tensor], source: str) -> Fitted:
    """What `load` would load; the model may be on the meta device. Raises as `load` does."""
    try:
        stored = read(tensors)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    weights, notes = dict(stored.weights), [f"weights from {source} ({stored.kind})"]
    notes += [f"not taken: {', '.join(grouped(names))}: {reason}" for reason, names in stored.left.items()]

    own = model.state_dict()
    if any(name.startswith("text_decoder.") for name in own) and stored.kind == "UMT, pre-training":
        weights |= _decoder_from_encoder(weights, model.text_encoder.fusion_layer)
        notes.append("the answer decoder starts as the fusion layers, embeddings and word head of pre-training")

    own_parts = {_part(name) for name in own}
    unused = [name for name in weights if name not in own and _part(name) not in own_parts]
    if unused:
        notes.append(f"not taken: {', '.join(grouped(unused))}: this model has no such part")
    weights = {name: tensor for name, tensor in weights.items() if name not in unused}

    absent = {_part(name) for name in own} - {_part(name) for name in weights}
    if stored.rest_is_fresh and absent:
        notes.append(f"not in the file, and fresh: {', '.join(sorted(absent))}")
        own = {name: tensor for name, tensor in own.items() if _part(name) not in absent}
    _refuse_if_other(weights, own, source)
    return Fitted(weights, notes)


def load(model: UMT, tensors: Mapping[str, Tensor], source: str) -> list[str]:
    """Put the weights of a published file into `model`; returns lines for a log.

    A file of stage 1 leaves all but the video encoder fresh. The answer decoder of a model that reads a file of
    pre-training starts as the later layers of its text encoder.

    Raises:
        ValueError: the file is none of UMT's, or a tensor of the model is missing, unexpected or of another shape; all
            of that is listed, and nothing is loaded.
    """
    fitted = fit(model, tensors, source)
    model.load_state_dict(fitted.weights, strict=False)
    return fitted.notes


def _to_ours(name: str, kind: Kind) -> str:
    if kind == "stage 1":
        return f"vision_encoder.{name}"
    for theirs, ours in PRETRAINING_NAMES:
        if kind == "pre-training" and name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _decoder_from_encoder(weights: Mapping[str, Tensor], fusion_layer: int) -> dict[str, Tensor]:
    """The answer decoder that the reference makes of a pre-trained text encoder, under our names."""
    decoder: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer = re.match(r"text_encoder\.encoder\.layer\.(\d+)\.(.*)", name)
        if name.startswith("text_encoder.embeddings."):
            decoder[f"text_decoder.bert.{name.removeprefix('text_encoder.')}"] = tensor
        elif layer and int(layer[1]) >= fusion_layer:
            decoder[f"text_decoder.bert.encoder.layer.{int(layer[1]) - fusion_layer}.{layer[2]}"] = tensor
        elif name.startswith("mlm_head."):
            decoder[f"text_decoder.cls.predictions.{name.removeprefix('mlm_head.')}"] = tensor
    return decoder


def _part(name: str) -> str:
    """The part of a model that is there or not as a whole: the video encoder has several."""
    return ".".join(name.split(".")[:2]) if name.startswith("vision_encoder.") else part_of(name)


def _refuse_if_other(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    wrong = [f"{name}: missing" for name in own if name not in weights]
    wrong += [f"{name}: unexpected" for name in weights if name not in own]
    for name in own.keys() & weights.keys():
        if own[name].shape != weights[name].shape:
            found, wanted = tuple(weights[name].shape), tuple(own[name].shape)
            wrong.append(f"{name}: has shape {found}, the model's is {wanted}")
    if wrong:
        more = f"\n  and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        listed = "\n  ".join(sorted(wrong)[:LISTED])
        raise ValueError(f"{source}: is of another model than `model` describes:\n  {listed}{more}")


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered parts follow a prefix."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in tensors if name.startswith(prefix)})
