"""Starting a model from the weights of another of ours: other frames, another image size, another task."""

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from models.blocks import resize_in_time
from models.vision_language import VisionLanguageModel

PREFIX = "model."
"""Under which a task's checkpoint holds the model; the twin and the queue lie beside it and are not taken."""


def load_model(model: VisionLanguageModel, tensors: Mapping[str, Tensor], source: str) -> list[str]:
    """Put the weights of a task's checkpoint into `model`; returns what of the model in the file was not taken.

    The position embedding is resized bicubically and the time embedding to the nearest frame. Whatever the model lacks
    (a decoder, the temporal scaling) is left in the file; anything missing or of another shape is a `ValueError` that
    lists it.
    """
    found = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    if not found:
        raise ValueError(f"{source}: holds no weights under {PREFIX!r}; is it a checkpoint of this project?")
    expected = model.state_dict()
    fitted: dict[str, Tensor] = {}
    wrong = []
    for name, own in expected.items():
        if name not in found:
            wrong.append(f"{name}: missing")
            continue
        fitted[name] = _fit(name, found[name], own)
        if fitted[name].shape != own.shape:
            wrong.append(f"{name}: has shape {tuple(found[name].shape)}, the model's is {tuple(own.shape)}")
    if wrong:
        more = f"\n  and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise ValueError(f"{source}: is of another model than `model` describes:\n  " + "\n  ".join(wrong[:20]) + more)
    model.load_state_dict(fitted)
    return sorted(found.keys() - expected.keys())


def _fit(name: str, tensor: Tensor, own: Tensor) -> Tensor:
    """Embeddings of places and times resized to the model's own number; all else as it is."""
    if name.endswith("pos_embed") and tensor.shape[1] != own.shape[1] and tensor.shape[2] == own.shape[2]:
        return resize_places(tensor, own.shape[1] - 1)
    if name.endswith(("time_embed", "temporal_scaling")) and tensor.shape[2] == own.shape[2]:
        return resize_in_time(tensor, own.shape[1])
    return tensor


def resize_places(embedding_1ND: Tensor, num_patches: int) -> Tensor:
    """The position embedding of a square grid resized bicubically to one of `num_patches`; the class token's stays."""
    side, wanted = round((embedding_1ND.shape[1] - 1) ** 0.5), round(num_patches**0.5)
    grid = rearrange(embedding_1ND[:, 1:].float(), "1 (H W) D -> 1 D H W", H=side)
    grid = F.interpolate(grid, size=(wanted, wanted), mode="bicubic", align_corners=False)
    return torch.cat([embedding_1ND[:, :1], rearrange(grid, "1 D H W -> 1 (H W) D").to(embedding_1ND.dtype)], dim=1)
