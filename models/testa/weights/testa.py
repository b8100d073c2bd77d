"""TESTA's files: BLIP's names, and in the video encoder a time embedding and attention over time (247 names, not 150).

`testa_model_base_pretrain.pth` holds all of pre-training and, in each block, a `temporal_scaling` that no fine-tune has
(259 names); `testa_model_base_{queryd,didemo,anet,cm}_f32_f1p12.pth` are fine-tunes for retrieval. Its fine-tunes for
question answering hold encoder, text encoder and decoder only. Aggregation adds no weights.
"""

from collections.abc import Iterable, Mapping

from torch import Tensor

from models.checkpoints.stored import Stored
from models.testa.weights import blip


def matches(names: Iterable[str]) -> bool:
    """Whether these are the names of one of TESTA's files: a video encoder that knows time."""
    names = set(names)
    return "visual_encoder.time_embed" in names and blip.matches(names)


def read(tensors: Mapping[str, Tensor]) -> Stored:
    """The weights as they are; queues and position ids are no weights."""
    return blip.read_named(tensors, "TESTA")
