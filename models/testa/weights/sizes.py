"""Which model a reference file belongs to, read from the names and shapes of its tensors."""

import re
from collections.abc import Mapping

from torch import Tensor

from configs.schema import TestaConfig, TextConfig, VideoConfig
from models.checkpoints.stored import part_of

HEAD_WIDTH = 64
"""Width of one attention head in ViT-B and BERT-base; tensors do not show it."""


def task_of(tensors: Mapping[str, Tensor]) -> str:
    """The task whose model has the parts of a file."""
    parts = {part_of(name) for name in tensors}
    if "visual_encoder" not in parts or not parts & {"text_encoder", "text_decoder"}:
        raise ValueError(f"holds {', '.join(sorted(parts))}: that is no model of a task")
    if "itm_head" in parts:
        return "pretrain" if "text_decoder" in parts else "retrieval"
    return "vqa" if "text_encoder" in parts else "caption"


def model_of(tensors: Mapping[str, Tensor]) -> TestaConfig:
    """The model's sizes. A model without time embedding is an image model: `attention: space`."""
    shape = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    width = shape["visual_encoder.cls_token"][2]
    attention = "joint" if "visual_encoder.time_embed" in shape else "space"
    return TestaConfig(
        attention="divided" if "visual_encoder.blocks.0.temporal_attn.qkv.weight" in shape else attention,  # type: ignore[arg-type]
        depth=_count(tensors, r"visual_encoder\.blocks\.(\d+)\."),
        width=width,
        heads=_heads(width, "model.heads"),
        patch_size=shape["visual_encoder.patch_embed.proj.weight"][2],
        mlp_ratio=shape["visual_encoder.blocks.0.mlp.fc1.weight"][0] / width,
        temporal_scaling="visual_encoder.blocks.0.temporal_scaling" in shape,
        embed_dim=shape.get("vision_proj.weight", (TestaConfig.embed_dim,))[0],
        text=_text_of(tensors),
    )


def video_of(tensors: Mapping[str, Tensor]) -> VideoConfig:
    """Frames from the time embedding, pixels from the position embedding, and TESTA's sampling; else the defaults."""
    patch = tensors["visual_encoder.patch_embed.proj.weight"].shape[2]
    image_size = patch * round((tensors["visual_encoder.pos_embed"].shape[1] - 1) ** 0.5)
    if "visual_encoder.time_embed" not in tensors:
        return VideoConfig(image_size=image_size)
    return VideoConfig(
        num_frames=tensors["visual_encoder.time_embed"].shape[1],
        image_size=image_size,
        train_sampling="headtail" if task_of(tensors) == "pretrain" else "uniform_floor",
        eval_sampling="uniform_floor",
    )


def _text_of(tensors: Mapping[str, Tensor]) -> TextConfig:
    tower = "text_encoder." if "text_encoder.embeddings.LayerNorm.weight" in tensors else "text_decoder.bert."
    vocabulary, width = tensors[f"{tower}embeddings.word_embeddings.weight"].shape
    return TextConfig(
        vocab_size=vocabulary,
        depth=_count(tensors, re.escape(tower) + r"encoder\.layer\.(\d+)\."),
        width=width,
        heads=_heads(width, "model.text.heads"),
        intermediate=tensors[f"{tower}encoder.layer.0.intermediate.dense.weight"].shape[0],
        max_positions=tensors[f"{tower}embeddings.position_embeddings.weight"].shape[0],
    )


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    matches = [re.match(pattern, name) for name in tensors]
    return 1 + max(int(match[1]) for match in matches if match)


def _heads(width: int, key: str) -> int:
    if width % HEAD_WIDTH:
        raise ValueError(f"{key}: cannot be told from a width of {width}; describe the model with --config FILE")
    return width // HEAD_WIDTH
