"""Convert UMT's published files to our checkpoints and back: the entry `convert` in the table of systems."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from configs.load import to_dict
from configs.models.base import ModelConfig
from configs.models.umt import SplitTextConfig, UMTConfig
from models.checkpoints.native import MODEL
from models.checkpoints.stored import part_of
from models.umt import weights
from models.umt.weights import POSITION_IDS, TEACHER, Kind

known_files = "UMT (stage 1, pre-training, retrieval, question answering)"
saved_under = "model"
matches = weights.matches
POSITIONS = "embeddings.position_embeddings.weight"
TASKS: dict[Kind, str] = {
    "stage 1": "pretrain",
    "pre-training": "pretrain",
    "retrieval": "retrieval",
    "question answering": "vqa",
}
FRAMES = {"pretrain": 4, "retrieval": 12, "vqa": 12}
"""How many frames the published models of a task were trained on; a file does not say."""
IMAGENET = {"pixel_mean": [0.485, 0.456, 0.406], "pixel_std": [0.229, 0.224, 0.225]}
LARGE_WIDTH = 1024
LARGE_TEXT = SplitTextConfig(depth=24, width=1024, heads=16, intermediate=4096, fusion_layer=19)
"""The text encoder beside a video encoder of `LARGE_WIDTH`, where a file has none to read its size from."""


def to_native(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published file as a task's `state_dict()` names them; values stay unchanged."""
    return {f"{MODEL}{name}": tensor for name, tensor in weights.read(tensors).weights.items()}


def to_reference(tensors: Mapping[str, Tensor], task: str) -> dict[str, Tensor]:
    """Rename the tensors of our checkpoint as UMT's files do, with position ids, which are counted."""
    own = {name.removeprefix(MODEL): tensor for name, tensor in tensors.items() if name.startswith(MODEL)}
    published = weights.to_published(own, kind_of_ours(own))
    for name in [name for name in published if name.endswith(POSITIONS)]:
        ids = torch.arange(len(published[name]))[None]
        published[name.removesuffix(POSITIONS) + f"embeddings{POSITION_IDS}"] = ids
    return published


def kind_of_ours(tensors: Mapping[str, Tensor]) -> Kind:
    """Which kind of published file has the parts of these tensors, which are under our names."""
    parts = {part_of(name) for name in tensors}
    if parts == {"vision_encoder"}:
        return "stage 1"
    if "mlm_head" in parts:
        return "pre-training"
    return "question answering" if "text_decoder" in parts else "retrieval"


def settings_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The task of a file, and the configuration sections that follow from its names and shapes."""
    kind = weights.kind_of(tensors)
    assert kind is not None, "`matches` comes first"
    found, task = weights.read(tensors).weights, TASKS[kind]

    model = _model_of(found)
    settings = {
        "task": task,
        "model": to_dict(model),
        "video": {
            "num_frames": FRAMES[task],
            "train_sampling": "interval_random_padded",
            "eval_sampling": "interval_middle_padded",
            "interpolation": "bicubic_aliased",
            "augment": "resized_crop",
            **IMAGENET,
        },
    }

    if task != "vqa":
        settings["data"] = {"root": "data", "clean_up": "no_punctuation"}
        settings["objective"] = _objective_of(found, model)
    if task == "retrieval":
        settings["evaluation"] = {"rerank_rule": "logit"}
    return settings


def left_out(names: Iterable[str]) -> dict[str, list[str]]:
    """The names that our checkpoints omit, by reason."""
    found: dict[str, list[str]] = {}
    for name in names:
        if part_of(name) == TEACHER:
            found.setdefault("they are the teacher's, which is no part of the model", []).append(name)
        elif name.endswith(POSITION_IDS):
            found.setdefault("they are counted and not learned", []).append(name)
    return found


def described(model: ModelConfig) -> str:
    """What distinguishes models of this system, in words."""
    assert isinstance(model, UMTConfig)
    return f"{model.depth} blocks of width {model.width}"


def _model_of(found: Mapping[str, Tensor]) -> UMTConfig:
    """The sizes of weights under our names; a file of stage 1 has no text encoder, and gets the published one."""
    if any(name.startswith("text_encoder.") for name in found):
        return weights.config_of(found)
    width = len(found["vision_encoder.encoder.norm.weight"])
    return weights.vision_config_of(found, LARGE_TEXT if width == LARGE_WIDTH else SplitTextConfig())


def _objective_of(found: Mapping[str, Tensor], model: UMTConfig) -> dict[str, Any]:
    """UMT's own objective, with the losses whose heads the weights have."""
    losses = ["vtc", "vtm"]
    if any(name.startswith("mlm_head.") for name in found):
        losses.append("mlm")
    heads = [name for name in found if name.startswith("vision_encoder.clip_decoder.") and name.endswith("head.weight")]
    if not heads:
        return {"name": "unmasked_teacher", "losses": losses}

    # The teacher's file is not among the weights: a name for it, which training from the folder may change.
    width = len(found[heads[0]])
    patch = 14 if width == 768 else model.patch_size
    teacher = {
        "weights": "checkpoints/ViT-L-14.pt" if width == 768 else "checkpoints/ViT-B-16.pt",
        "patch_size": patch,
        "image_size": 224 // model.patch_size * patch,
        "width": width,
        "blocks": len(heads),
    }
    return {"name": "unmasked_teacher", "losses": [*losses, "uta"], "teacher": teacher}
