"""Convert files of TVTSv2 and CLIP to our checkpoints, and ours to TVTSv2's: the entry `convert` in the systems' table.

A CLIP file of OpenAI's, OpenCLIP's or transformers' names becomes a TVTSv2 whose attention over time has no effect yet.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from configs.models.base import ModelConfig
from configs.models.tvts import TvtsConfig
from models.checkpoints.native import MODEL
from models.parts.clip.files import image_sizes_of
from models.tvts import weights
from models.tvts.formats import PLACES, TIMES, VIDEO, Clip, Published
from models.tvts.sizes import TVTS_PUBLISHED, TvtsSizes

known_files = "TVTSv2 or CLIP"
saved_under = "state_dict"
HEAD_WIDTH = 64
"""Of every published model but H/14, which is known by its sizes."""
FRAMES = 12
IMAGENET = {"pixel_mean": [0.485, 0.456, 0.406], "pixel_std": [0.229, 0.224, 0.225]}
RESIZE = 268 / 224
TEXT_BLOCKS = "text_model.transformer.resblocks."


def matches(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of a TVTSv2 or a CLIP."""
    return Published.matches(tensors) or Clip.matches(tensors)


def to_native(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a file as a task's `state_dict()` names them; CLIP's get attention over time."""
    return {f"{MODEL}{name}": tensor for name, tensor in _weights_of(tensors).items()}


def to_reference(tensors: Mapping[str, Tensor], task: str) -> dict[str, Tensor]:
    """Rename the tensors of our checkpoint as TVTSv2's files do; they have no sorting head."""
    own = {name.removeprefix(MODEL): tensor for name, tensor in tensors.items() if name.startswith(MODEL)}
    return weights.to_published(own)


def settings_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Zero-shot retrieval as TVTSv2 evaluates it, with the sizes of a file's model."""
    found = _weights_of(tensors)
    video = {name.removeprefix(f"{VIDEO}."): tensor for name, tensor in found.items() if name.startswith(VIDEO)}
    sizes = image_sizes_of({weights.video_to_clip(name): tensor for name, tensor in video.items()})

    return {
        "task": "retrieval",
        "model": _model_of(found, sizes.width, sizes.depth, sizes.patch_size),
        "video": {
            "num_frames": len(video[TIMES]),
            "image_size": sizes.image_size,
            "train_sampling": "interval_random",
            "eval_sampling": "interval_middle_padded",
            "fit": "crop",
            "resize": round(RESIZE * sizes.image_size),
            "interpolation": "nearest",
            "augment": "crop",
            **IMAGENET,
        },
        "data": {"root": "data", "clean_captions": False, "max_tokens": len(found["text_model.positional_embedding"])},
        "objective": {"losses": ["vtc"], "queue_size": 0, "momentum": 0.0, "alpha": 0.0, "temperature": 0.05},
        "evaluation": {"rerank": 0},
    }


def left_out(names: Iterable[str]) -> dict[str, list[str]]:
    """The names that our checkpoints omit, by reason."""
    listed = list(names)
    scale = [name for name in listed if name.endswith("logit_scale")]
    sorting = [name for name in listed if name.removeprefix("module.").startswith(weights.SORT_HEAD)]
    found = {"contrast has its own temperature": scale, "retrieval has no sorting head": sorting}
    return {reason: left for reason, left in found.items() if left}


def described(model: ModelConfig) -> str:
    """What distinguishes models of this system, in words."""
    assert isinstance(model, TvtsConfig)
    return f"{model.depth} blocks of width {model.width}, patches of {model.patch_size} pixels"


def _weights_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file under our names, complete but for the sorting head."""
    if Published.matches(tensors):
        found = Published.read(tensors).weights
        return {name: tensor for name, tensor in found.items() if not name.startswith(weights.SORT_HEAD)}
    found = dict(Clip.read(tensors).weights)
    missing = {f"{VIDEO}.{PLACES}", "text_model.positional_embedding"} - found.keys()
    if missing:
        raise ValueError(f"is a CLIP without {' and '.join(sorted(missing))}; take a file with both towers")
    return found | fresh_time(found)


def fresh_time(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What CLIP lacks, as a fresh tower has it: attention over time that adds nothing, and no temporal embedding."""
    width = found[f"{VIDEO}.{PLACES}"].shape[1]
    blocks = f"{VIDEO}.transformer.resblocks."
    fresh = {f"{VIDEO}.{TIMES}": torch.zeros(FRAMES, width)}
    for block in {name.removeprefix(blocks).partition(".")[0] for name in found if name.startswith(blocks)}:
        own = f"{blocks}{block}."
        fresh |= {
            f"{own}timeattn.qkv.weight": torch.zeros(3 * width, width),
            f"{own}timeattn.qkv.bias": torch.zeros(3 * width),
            f"{own}timeattn.proj.weight": torch.ones(width, width),
            f"{own}timeattn.proj.bias": torch.zeros(width),
            f"{own}ln_3.weight": torch.ones(width),
            f"{own}ln_3.bias": torch.zeros(width),
        }
    return fresh


def _model_of(found: Mapping[str, Tensor], width: int, depth: int, patch_size: int) -> dict[str, Any]:
    """The `model` section; heads and activation are those of the published model of these sizes, or B/16's rule."""
    same = (
        sizes
        for sizes in TVTS_PUBLISHED.values()
        if (sizes.image.width, sizes.image.depth, sizes.image.patch_size) == (width, depth, patch_size)
    )
    known: TvtsSizes | None = next(same, None)

    words, positions = found["text_model.token_embedding.weight"], found["text_model.positional_embedding"]
    text_depth = len({name.split(".")[3] for name in found if name.startswith(TEXT_BLOCKS)})
    embed_dim = found[f"{VIDEO}.proj"].shape[1]

    return {
        "name": "tvts",
        "depth": depth,
        "width": width,
        "heads": known.image.heads if known else max(1, width // HEAD_WIDTH),
        "patch_size": patch_size,
        "activation": known.image.activation if known else "quick_gelu",
        "raw_patches": known.raw_patches if known else False,
        "mask_ratio": known.mask_ratio if known else 0.0,
        "sort_heads": known.sort_heads if known else max(1, embed_dim // HEAD_WIDTH),
        "embed_dim": embed_dim,
        "text": {
            "vocab_size": len(words),
            "max_positions": len(positions),
            "depth": text_depth,
            "width": words.shape[1],
            "heads": max(1, words.shape[1] // HEAD_WIDTH),
            "trained_blocks": known.trained_text_blocks if known else min(3, text_depth),
        },
    }
