"""Convert between the reference's names (TESTA's and BLIP's) and our checkpoints' names; values stay unchanged."""

from collections.abc import Mapping

import torch
from torch import Tensor

from models.checkpoints.native import MODEL, QUEUE, TWIN
from models.checkpoints.stored import TWIN_SUFFIX, part_of
from models.parts.momentum import NO_INDEX
from models.testa.model import VisionLanguageModel
from models.testa.weights.blip import POSITION_IDS, QUEUES

PARTS = ("visual_encoder", "text_encoder", "text_decoder", "vision_proj", "text_proj", "itm_head", "temp")
POSITIONS = "embeddings.position_embeddings.weight"


def to_native(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a reference file as a task's `state_dict()` names them, without position ids.

    Queues are (E, Q) there and (Q, E) here. `ValueError` names parts that no task here has.
    """
    known = {*PARTS, *(f"{part}{TWIN_SUFFIX}" for part in VisionLanguageModel.twinned), *QUEUES}
    strange = sorted({part_of(name) for name in tensors} - known)
    if strange:
        raise ValueError(f"holds parts that no task here has: {', '.join(strange)}")

    native: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in QUEUES:
            native |= _queue_to_native(name, tensor)
        elif not name.endswith(POSITION_IDS):
            native[(TWIN if part_of(name).endswith(TWIN_SUFFIX) else MODEL) + name] = tensor
    if f"{QUEUE}video" in native:
        # Pre-training's queue does not store which samples its pairs belong to: each pair counts as its own sample.
        native.setdefault(f"{QUEUE}index", torch.full((len(native[f"{QUEUE}video"]),), NO_INDEX))
    return native


def to_reference(tensors: Mapping[str, Tensor], task: str) -> dict[str, Tensor]:
    """Rename the tensors of our checkpoint as the reference's model of `task` names them, with position ids."""
    reference: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own = name.removeprefix(MODEL).removeprefix(TWIN)
        if name.startswith(QUEUE):
            reference |= _queue_to_reference(name.removeprefix(QUEUE), tensor, task)
        else:
            reference[own] = tensor
        if own.endswith(POSITIONS):
            ids = own.removesuffix(POSITIONS) + POSITION_IDS
            reference[ids] = torch.arange(len(tensor))[None]
    return reference


def _queue_to_native(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if name in ("image_queue", "text_queue"):
        return {f"{QUEUE}{'video' if name == 'image_queue' else 'text'}": tensor.T.contiguous()}
    if name == "idx_queue":
        return {f"{QUEUE}index": tensor.flatten()}
    return {f"{QUEUE}pointer": tensor.reshape(())}


def _queue_to_reference(name: str, tensor: Tensor, task: str) -> dict[str, Tensor]:
    if name == "video":
        return {"image_queue": tensor.T.contiguous()}
    if name == "text":
        return {"text_queue": tensor.T.contiguous()}
    if name == "pointer":
        return {"queue_ptr" if task == "pretrain" else "ptr_queue": tensor.reshape(1)}
    return {} if task == "pretrain" else {"idx_queue": tensor[None]}
