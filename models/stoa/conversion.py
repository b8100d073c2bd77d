"""Convert STOA-VLP's published files to our checkpoints and back: the entry `convert` in the table of systems."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from configs.models.base import ModelConfig
from configs.models.stoa import StoaConfig
from models.checkpoints.native import MODEL
from models.stoa.formats import Published
from models.stoa.weights import PREFIX, UNUSED, own_name, published_name

known_files = "STOA-VLP"
saved_under = None
"""`pytorch_model.bin.<step>` is a bare state dict."""
matches = Published.matches
HEAD_WIDTH = 64
"""Of every tower of the published model."""
FRAMES = 12
BOXES = "data/boxes.objects"
"""A name for the file of boxes, which a run replaces by its own."""
ACTION = "object_action"


def to_native(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published file as a task's `state_dict()` names them; values stay unchanged."""
    native: dict[str, Tensor] = {}
    for name, tensor in _bare(tensors).items():
        own = own_name(name)
        if own is not None:
            native[f"{MODEL}{own}"] = tensor.flatten(0, -2) if own == ACTION else tensor
    return native


def to_reference(tensors: Mapping[str, Tensor], task: str) -> dict[str, Tensor]:
    """Rename the tensors of our checkpoint as the published files do, without what that code never reads."""
    published: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(MODEL):
            published[published_name(name.removeprefix(MODEL))] = tensor
    action = f"{PREFIX}{ACTION}"
    if action in published:
        published[action] = published[action][None, None]
    return published


def settings_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Pre-training as it was published, with the sizes of a file's model."""
    bare = {name.removeprefix(PREFIX): tensor for name, tensor in _bare(tensors).items()}
    model = _model_of(bare)
    boxes = bare.get("visual.transformer.object_encoder.box_categories")
    frames = FRAMES if boxes is None else boxes.shape[-3]
    side = round((len(bare["visual.positional_embedding"]) - 1) ** 0.5)
    size = side * bare["visual.conv1.weight"].shape[-1]

    data: dict[str, Any] = {"root": "data", "clean_captions": False}
    if model["objects"] != "none":
        data["objects"] = BOXES

    return {
        "task": "pretrain",
        "model": model,
        "video": {
            "num_frames": frames,
            "image_size": size,
            "train_sampling": "per_second",
            "eval_sampling": "per_second",
            "fit": "crop",
            "resize": size,
            "interpolation": "bicubic",
        },
        "data": data,
        "objective": {"name": "fusion", "losses": ["vtm", "mlm", "plm"]},
    }


def left_out(names: Iterable[str]) -> dict[str, list[str]]:
    """The names that our checkpoints omit, by reason."""
    unused = [name for name in names if UNUSED.match(name.removeprefix("module."))]
    return {"the published model never reads them": unused} if unused else {}


def described(model: ModelConfig) -> str:
    """What distinguishes models of this system, in words."""
    assert isinstance(model, StoaConfig)
    return f"objects {model.objects}, {model.num_actions if model.actions else 'no'} actions"


def _bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _model_of(bare: Mapping[str, Tensor]) -> dict[str, Any]:
    """The `model` section of a file's tensors, whose names are without prefix."""
    conv, words, positions = (
        bare[name] for name in ("visual.conv1.weight", "token_embedding.weight", "positional_embedding")
    )
    width, embed_dim = len(conv), bare["visual.proj"].shape[1]

    boxes = bare.get("visual.transformer.object_encoder.box_categories")
    has_fusion = any(name.startswith("object_fusion.") for name in bare)

    model = {
        "name": "stoa",
        "depth": _count(bare, "visual.transformer.resblocks."),
        "width": width,
        "heads": max(1, width // HEAD_WIDTH),
        "patch_size": conv.shape[-1],
        "objects": "fusion" if has_fusion else "none" if boxes is None else "attention",
        "actions": ACTION in bare,
        "fusion_depth": _count(bare, "fusion_transformer.resblocks."),
        "fusion_heads": max(1, embed_dim // HEAD_WIDTH),
        "fusion_positions": len(bare["fusion_positional_embedding"]),
        "max_words": min(StoaConfig.max_words, len(positions)),
        "embed_dim": embed_dim,
        "text": {
            "vocab_size": len(words),
            "max_positions": len(positions),
            "depth": _count(bare, "transformer.resblocks."),
            "width": words.shape[1],
            "heads": max(1, words.shape[1] // HEAD_WIDTH),
        },
    }

    if boxes is not None:
        model["objects_per_frame"] = boxes.shape[-2]
    if ACTION in bare:
        model["num_actions"] = bare[ACTION].shape[-2]
    return model


def _count(bare: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered blocks follow a prefix."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in bare if name.startswith(prefix)})
