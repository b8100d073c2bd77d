"""The names and shapes of UMT's published files, written out from their description and not from our model."""

from typing import NamedTuple

import torch
from torch import Tensor


class Size(NamedTuple):
    """What the shapes of a file follow from."""

    width: int
    depth: int
    patch: int
    teacher_layers: int
    teacher_width: int
    embed: int
    words: int
    positions: int
    text_width: int
    text_depth: int
    intermediate: int
    fusion: int


BASE = Size(768, 12, 16, 6, 512, 512, 30522, 512, 768, 12, 3072, 9)
LARGE = Size(1024, 24, 16, 6, 768, 768, 30522, 512, 1024, 24, 4096, 19)
TINY = Size(16, 3, 4, 2, 10, 12, 30, 20, 16, 4, 24, 2)
KINDS = ("stage 1", "pre-training", "retrieval", "question answering")
Shapes = dict[str, tuple[int, ...]]


def linear(name: str, inner: int, outer: int) -> Shapes:
    return {f"{name}.weight": (outer, inner), f"{name}.bias": (outer,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def vision(size: Size, teacher: bool, pool_norm: bool) -> Shapes:
    width = size.width
    shapes: Shapes = {
        "encoder.patch_embed.proj.weight": (width, 3, 1, size.patch, size.patch),
        "encoder.patch_embed.proj.bias": (width,),
        **norm("encoder.norm", width),
    }
    for index in range(size.depth):
        block = f"encoder.blocks.{index}"
        shapes |= {
            **norm(f"{block}.norm1", width),
            **norm(f"{block}.norm2", width),
            f"{block}.attn.qkv.weight": (3 * width, width),
            f"{block}.attn.q_bias": (width,),
            f"{block}.attn.v_bias": (width,),
            **linear(f"{block}.attn.proj", width, width),
            **linear(f"{block}.mlp.fc1", width, 4 * width),
            **linear(f"{block}.mlp.fc2", 4 * width, width),
        }
    if pool_norm:
        shapes |= norm("pool_norm", width)
    for index in range(size.teacher_layers if teacher else 0):
        shapes |= linear(f"clip_decoder.{index}.head", width, size.teacher_width)
        shapes |= norm(f"clip_decoder.{index}.norm", size.teacher_width)
    return shapes


def bert(size: Size, prefix: str, depth: int, fusion: int, context: int) -> Shapes:
    width = size.text_width
    shapes: Shapes = {
        f"{prefix}embeddings.position_ids": (1, size.positions),
        f"{prefix}embeddings.word_embeddings.weight": (size.words, width),
        f"{prefix}embeddings.position_embeddings.weight": (size.positions, width),
        f"{prefix}embeddings.token_type_embeddings.weight": (2, width),
        **norm(f"{prefix}embeddings.LayerNorm", width),
    }
    for index in range(depth):
        layer = f"{prefix}encoder.layer.{index}"
        attentions = {"attention": width} | ({"crossattention": context} if index >= fusion else {})
        for attention, seen in attentions.items():
            shapes |= linear(f"{layer}.{attention}.self.query", width, width)
            shapes |= linear(f"{layer}.{attention}.self.key", seen, width)
            shapes |= linear(f"{layer}.{attention}.self.value", seen, width)
            shapes |= linear(f"{layer}.{attention}.output.dense", width, width)
            shapes |= norm(f"{layer}.{attention}.output.LayerNorm", width)
        shapes |= linear(f"{layer}.intermediate.dense", width, size.intermediate)
        shapes |= linear(f"{layer}.output.dense", size.intermediate, width)
        shapes |= norm(f"{layer}.output.LayerNorm", width)
    return shapes


def word_head(size: Size, prefix: str) -> Shapes:
    width = size.text_width
    return {
        f"{prefix}bias": (size.words,),
        **linear(f"{prefix}transform.dense", width, width),
        **norm(f"{prefix}transform.LayerNorm", width),
        **linear(f"{prefix}decoder", width, size.words),
    }


def shapes_of(kind: str, size: Size) -> Shapes:
    """Every name of a kind of file, with its shape."""
    answers = kind == "question answering"
    encoder = vision(size, teacher=kind == "pre-training", pool_norm=not answers)
    if kind == "stage 1":
        return {name: shape for name, shape in encoder.items() if name.startswith("encoder.")}
    shapes = {f"vision_encoder.{name}": shape for name, shape in encoder.items()}
    if kind == "pre-training":
        shapes |= {"clip_teacher.proj": (size.width, size.teacher_width)}
        shapes |= bert(size, "text_encoder.bert.", size.text_depth, size.fusion, size.width)
        shapes |= word_head(size, "text_encoder.cls.predictions.")
    else:
        shapes |= bert(size, "text_encoder.", size.text_depth, size.fusion, size.width)
    if answers:
        shapes |= bert(size, "text_decoder.bert.", size.text_depth - size.fusion, 0, size.text_width)
        return shapes | word_head(size, "text_decoder.cls.predictions.")
    shapes |= linear("vision_proj", size.width, size.embed) | linear("text_proj", size.text_width, size.embed)
    return shapes | linear("itm_head", size.text_width, 2) | {"temp": ()}


def published(kind: str, size: Size, device: str = "cpu") -> dict[str, Tensor]:
    """A file with random weights; a word head shares its matrix with the word embeddings and its two biases."""
    generator = None if device == "meta" else torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator, device=device) for name, shape in shapes_of(kind, size).items()
    }
    for name in list(tensors):
        if name.endswith("cls.predictions.decoder.weight"):
            tower = name.removesuffix("cls.predictions.decoder.weight")
            tensors[name] = tensors[f"{tower}bert.embeddings.word_embeddings.weight"]
            tensors[name.replace("weight", "bias")] = tensors[f"{tower}cls.predictions.bias"]
        if name.endswith("position_ids"):
            tensors[name] = torch.arange(size.positions, device=device)[None]
    return tensors
