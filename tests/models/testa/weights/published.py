"""Files with exactly the names, shapes and dtypes of the published ones, written out and not taken from our models.

TESTA's and BLIP's ViT-B and BERT-base, and the same names in a small size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """Of a file's model: `places` are patches and the class token, `queue` the entries of its queues."""

    width: int = 768
    depth: int = 12
    patch: int = 16
    places: int = 197
    frames: int = 8
    text_width: int = 768
    text_depth: int = 12
    intermediate: int = 3072
    positions: int = 512
    vocabulary: int = 30524
    embed: int = 256
    queue: int = 32


FULL = Sizes()
SMALL = Sizes(
    width=64, depth=2, patch=4, places=17, text_width=64, text_depth=2, intermediate=48, positions=16, vocabulary=40,
    embed=16, queue=5,
)  # fmt: skip


def _pair(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def visual(s: Sizes, *, time: bool, scaling: bool = False) -> Shapes:
    """A ViT's names: 150, with attention over time 247, with its scaling 259."""
    d = s.width
    shapes: Shapes = {"cls_token": (1, 1, d), "pos_embed": (1, s.places, d)}
    shapes |= {"patch_embed.proj.weight": (d, 3, s.patch, s.patch), "patch_embed.proj.bias": (d,)}
    shapes |= {"time_embed": (1, s.frames, d)} if time else {}
    for i in range(s.depth):
        b = f"blocks.{i}"
        shapes |= _norm(f"{b}.norm1", d) | _pair(f"{b}.attn.qkv", 3 * d, d) | _pair(f"{b}.attn.proj", d, d)
        shapes |= _norm(f"{b}.norm2", d) | _pair(f"{b}.mlp.fc1", 4 * d, d) | _pair(f"{b}.mlp.fc2", d, 4 * d)
        if time:
            shapes |= _norm(f"{b}.temporal_norm1", d) | _pair(f"{b}.temporal_attn.qkv", 3 * d, d)
            shapes |= _pair(f"{b}.temporal_attn.proj", d, d) | _pair(f"{b}.temporal_fc", d, d)
        if scaling:
            shapes[f"{b}.temporal_scaling"] = (1, s.frames, 1)
    return shapes | _norm("norm", d)


def bert(s: Sizes) -> Shapes:
    """The text encoder's 317 names."""
    d = s.text_width
    shapes: Shapes = {"embeddings.position_ids": (1, s.positions)}
    shapes |= {"embeddings.word_embeddings.weight": (s.vocabulary, d)}
    shapes |= {"embeddings.position_embeddings.weight": (s.positions, d)} | _norm("embeddings.LayerNorm", d)
    for i in range(s.text_depth):
        layer = f"encoder.layer.{i}"
        for attention, seen in (("attention", d), ("crossattention", s.width)):
            for name, into in (("query", d), ("key", seen), ("value", seen)):
                shapes |= _pair(f"{layer}.{attention}.self.{name}", d, into)
            shapes |= _pair(f"{layer}.{attention}.output.dense", d, d)
            shapes |= _norm(f"{layer}.{attention}.output.LayerNorm", d)
        shapes |= _pair(f"{layer}.intermediate.dense", s.intermediate, d)
        shapes |= _pair(f"{layer}.output.dense", d, s.intermediate) | _norm(f"{layer}.output.LayerNorm", d)
    return shapes


def bert_with_head(s: Sizes) -> Shapes:
    """The decoder's 324 names."""
    head, d = "cls.predictions", s.text_width
    shapes = {f"bert.{name}": shape for name, shape in bert(s).items()}
    shapes |= {f"{head}.bias": (s.vocabulary,)} | _pair(f"{head}.transform.dense", d, d)
    return shapes | _norm(f"{head}.transform.LayerNorm", d) | _pair(f"{head}.decoder", s.vocabulary, d)


def _under(part: str, shapes: Shapes) -> Shapes:
    return {f"{part}.{name}": shape for name, shape in shapes.items()}


def shapes_of(kind: str, s: Sizes) -> Shapes:
    """All names of a file of `FILES` or `BLIP_FILES`."""
    family, task = kind.split("_", 1)
    encoder = visual(s, time=family == "testa", scaling=kind == "testa_pretrain")
    heads = _pair("vision_proj", s.embed, s.width) | _pair("text_proj", s.embed, s.text_width)
    shapes = _under("visual_encoder", encoder)
    if task != "caption":
        shapes |= _under("text_encoder", bert(s))
    if task != "retrieval":
        shapes |= _under("text_decoder", bert_with_head(s))
    if task in ("pretrain", "retrieval"):
        shapes |= heads | _pair("itm_head", 2, s.text_width) | {"temp": ()}
        shapes |= _under("visual_encoder_m", encoder) | _under("text_encoder_m", bert(s))
        shapes |= {name.replace("_proj", "_proj_m"): shape for name, shape in heads.items()}
        shapes |= {"image_queue": (s.embed, s.queue), "text_queue": (s.embed, s.queue)}
        own = {"idx_queue": (1, s.queue), "ptr_queue": (1,)}
        shapes |= {"queue_ptr": (1,)} if task == "pretrain" else own
    return shapes


FILES = ("testa_pretrain", "testa_retrieval", "testa_vqa")
BLIP_FILES = ("blip_pretrain", "blip_retrieval", "blip_vqa", "blip_caption")


def whole_numbers(name: str, shape: tuple[int, ...]) -> Tensor | None:
    """The tensors that hold int64."""
    if name.endswith("position_ids"):
        return torch.arange(shape[1])[None]
    if name == "idx_queue":
        return torch.arange(shape[1])[None] - 100
    return torch.ones(shape, dtype=torch.int64) if name in ("queue_ptr", "ptr_queue") else None


def build(kind: str, sizes: Sizes, make: Callable[[str, tuple[int, ...]], Tensor]) -> dict[str, Tensor]:
    """A file of that kind, its floats made by `make`; tensors that a published file shares are shared."""
    tensors: dict[str, Tensor] = {}
    for name, shape in shapes_of(kind, sizes).items():
        shared = _shared_with(kind, name)
        integers = whole_numbers(name, shape)
        tensors[name] = tensors[shared] if shared else make(name, shape) if integers is None else integers
    return tensors


def _shared_with(kind: str, name: str) -> str | None:
    """An earlier name of the same tensor: the head's, and those of pre-training's tied towers."""
    if name.startswith("text_decoder.cls.predictions.decoder"):
        words = "text_decoder.bert.embeddings.word_embeddings.weight"
        return words if name.endswith("weight") else "text_decoder.cls.predictions.bias"
    own = name.removeprefix("text_decoder.bert.")
    if kind.endswith("pretrain") and own != name and ".attention." not in own and "position_ids" not in own:
        return f"text_encoder.{own}"
    return None


def random(name: str, shape: tuple[int, ...]) -> Tensor:
    """Weights of a size at which every part has an effect and nothing overflows."""
    if name == "temp":
        return torch.tensor(0.05)
    scale = "norm" in name.lower() and name.endswith("weight")
    spread = 0.2 if scale or len(shape) < 2 else 2 * shape[-1] ** -0.5
    return torch.empty(shape).uniform_(float(scale) - spread, float(scale) + spread)


def without_memory(name: str, shape: tuple[int, ...]) -> Tensor:
    """Zeros of any size that take four bytes."""
    return torch.zeros(()).expand(shape)
