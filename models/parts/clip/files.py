"""CLIP's weights from files of three kinds: transformers', OpenCLIP's, and OpenAI's TorchScript archives."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.parts.clip.image_tower import ImageTower
from models.parts.clip.names import IMAGE, is_clip, under_openai_names
from models.parts.clip.sizes import PUBLISHED, ImageTowerSizes, TextTowerSizes
from models.parts.clip.text_tower import TextTower
from models.parts.clip.torchscript import is_torchscript, read_torchscript

IN_FOLDER = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
"""File names that a folder of transformers or OpenCLIP may hold, in the order in which they are tried."""
Sizes = ImageTowerSizes | TextTowerSizes
HEAD_WIDTH = 64
"""Head width of all published towers except ViT-H/14's image tower; tensors do not show it."""


def read_clip(path: Path) -> dict[str, Tensor]:
    """CLIP's weights under OpenAI's names, float32: `visual.*`, those of the text tower, and `logit_scale`.

    Args:
        path: a file (.safetensors; .bin, .pt or .pth of `torch.save`; .pt of `torch.jit.save`), or a folder with one.

    Raises:
        ValueError: there is no such file, it is damaged or holds more than plain data, or no CLIP with a ViT.
    """
    path = _file_in(path)
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
    elif is_torchscript(path):
        tensors = read_torchscript(path)
    else:
        tensors = _read_pickled(path)

    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    try:
        tensors = under_openai_names(tensors)
        if not is_clip(tensors):
            some = ", ".join(list(tensors)[:3]) or "nothing"
            raise ValueError(f"is no CLIP with a ViT under OpenAI's, OpenCLIP's or transformers' names; holds {some}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return {name: tensor.float() for name, tensor in tensors.items()}


def load_image_tower(tower: ImageTower, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put the image tower of `read_clip` into `tower`.

    ValueError if the file belongs to another model, which the message names, or lacks a tensor.
    """
    weights = {name.removeprefix(IMAGE): tensor for name, tensor in tensors.items() if name.startswith(IMAGE)}
    _check(weights, tower, source, "image tower")
    tower.load_state_dict(weights)


def load_text_tower(tower: TextTower, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put the text tower of `read_clip` into `tower`; errors as `load_image_tower`."""
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(IMAGE) and name != "logit_scale"}
    _check(weights, tower, source, "text tower")
    tower.load_state_dict(weights)


def image_sizes_of(weights: Mapping[str, Tensor]) -> ImageTowerSizes:
    """Sizes of an image tower's weights, without `visual.`; heads and activation are those of published models."""
    width, embed_dim = weights["proj"].shape
    patch_size = weights["conv1.weight"].shape[-1]
    grid = round((len(weights["positional_embedding"]) - 1) ** 0.5)
    found = ImageTowerSizes(width, _depth(weights), 1, patch_size, grid * patch_size, embed_dim)
    for sizes, _ in PUBLISHED.values():
        if _shown(sizes) == found:
            return sizes
    return replace(found, heads=max(1, width // HEAD_WIDTH))


def text_sizes_of(weights: Mapping[str, Tensor]) -> TextTowerSizes:
    """Sizes of a text tower's weights; heads and activation are those of published models."""
    width, embed_dim = weights["text_projection"].shape
    context, vocab_size = len(weights["positional_embedding"]), len(weights["token_embedding.weight"])
    found = TextTowerSizes(width, _depth(weights), 1, embed_dim, context, vocab_size)
    for _, sizes in PUBLISHED.values():
        if _shown(sizes) == found:
            return sizes
    return replace(found, heads=max(1, width // HEAD_WIDTH))


def describe(sizes: Sizes) -> str:
    """The published model with these sizes, if any, and the sizes that tensors show."""
    index = 0 if isinstance(sizes, ImageTowerSizes) else 1
    names = [name for name, towers in PUBLISHED.items() if _shown(towers[index]) == _shown(sizes)]
    shown = f"width {sizes.width}, {sizes.depth} blocks, embeddings of {sizes.embed_dim}"
    if isinstance(sizes, ImageTowerSizes):
        shown += f", patches of {sizes.patch_size}, images of {sizes.image_size}"
    else:
        shown += f", {sizes.context} places, {sizes.vocab_size} tokens"
    return f"{' or '.join(names)} ({shown})" if names else f"an unpublished size ({shown})"


def _check(weights: Mapping[str, Tensor], tower: ImageTower | TextTower, source: str, part: str) -> None:
    own = tower.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    differing = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    if not weights:
        raise ValueError(f"{source}: has no {part}")

    deeper = any(name.startswith("transformer.resblocks.") for name in (*missing, *unexpected))
    if differing or deeper:
        try:
            found = image_sizes_of(weights) if isinstance(tower, ImageTower) else text_sizes_of(weights)
        except (KeyError, ValueError):
            found = None
        if found is not None:
            raise ValueError(f"{source}: its {part} is {describe(found)}; the model's is {describe(tower.sizes)}")
    if missing or unexpected or differing:
        lines = [f"{name}: missing" for name in missing] + [f"{name}: unexpected" for name in unexpected]
        lines += [f"{name}: has shape {tuple(weights[name].shape)}" for name in differing]
        raise ValueError(f"{source}: its {part} does not fit the model's: {'; '.join(lines[:10])}")


def _shown(sizes: Sizes) -> Sizes:
    """The sizes that tensors show: heads and activation, which they do not show, are set to constants."""
    return replace(sizes, heads=1, activation="quick_gelu")


def _depth(weights: Iterable[str]) -> int:
    blocks = (re.match(r"transformer\.resblocks\.(\d+)\.", name) for name in weights)
    return 1 + max((int(block[1]) for block in blocks if block), default=-1)


def _file_in(path: Path) -> Path:
    if path.is_dir():
        found = next((path / name for name in IN_FOLDER if (path / name).is_file()), None)
        if found is None:
            raise ValueError(f"{path}: holds none of {', '.join(IN_FOLDER)}")
        return found
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    return path


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: is no safetensors file: {error}") from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle can make the reader stumble over anything
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: is no file of plain tensors: {text}") from error
    for key in ("state_dict", "model"):
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise ValueError(f"{path}: holds no tensors by name")
    return {str(name): tensor for name, tensor in held.items()}
