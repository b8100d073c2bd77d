"""Convert files of TESTA and BLIP to our checkpoints and back: the entry `convert` in the table of systems."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from configs.load import to_dict
from configs.models.base import ModelConfig
from configs.models.testa import as_testa
from models.testa.weights import blip, exchange, sizes

known_files = "TESTA or BLIP (ViTs of timm need no conversion, load them)"
saved_under = "model"
matches = blip.matches
to_native = exchange.to_native
to_reference = exchange.to_reference


def settings_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The task of a file, and the configuration sections that follow from its names and shapes."""
    task = sizes.task_of(tensors)
    settings = {"task": task, "model": to_dict(sizes.model_of(tensors)), "video": to_dict(sizes.video_of(tensors))}
    if "image_queue" in tensors:
        losses = ["vtc", "vtm", "cap"] if task == "pretrain" else ["vtc", "vtm"]
        settings["objective"] = {"losses": losses, "queue_size": tensors["image_queue"].shape[1]}
    return settings


def left_out(names: Iterable[str]) -> dict[str, list[str]]:
    """The names that our checkpoints omit, by reason."""
    counted = [name for name in names if name.endswith(blip.POSITION_IDS)]
    return {"they are counted and not learned": counted} if counted else {}


def described(model: ModelConfig) -> str:
    """What distinguishes models of this system, in words."""
    return f"{as_testa(model).attention} attention"
