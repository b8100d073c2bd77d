"""The two naming schemes for CLIP's weights: OpenAI's, which OpenCLIP and we use, and transformers'."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

IMAGE = "visual."
"""In a file of both towers, OpenAI's image tower has this prefix; the text tower has none."""

# Pairs of OpenAI's and transformers' names. Towers have their own parts, and blocks of the same kind.
_IMAGE_PARTS = (
    ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.weight", "vision_model.pre_layrnorm.weight"),
    ("visual.ln_pre.bias", "vision_model.pre_layrnorm.bias"),
    ("visual.ln_post.weight", "vision_model.post_layernorm.weight"),
    ("visual.ln_post.bias", "vision_model.post_layernorm.bias"),
    ("visual.proj", "visual_projection.weight"),
)
_TEXT_PARTS = (
    ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.weight", "text_model.final_layer_norm.weight"),
    ("ln_final.bias", "text_model.final_layer_norm.bias"),
    ("text_projection", "text_projection.weight"),
    ("logit_scale", "logit_scale"),
)
_BLOCK_PARTS = (
    ("attn.out_proj", "self_attn.out_proj"),
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
)
_BLOCKS = (
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("transformer.resblocks.", "text_model.encoder.layers."),
)
_TRANSPOSED = ("visual.proj", "text_projection")
"""OpenAI stores these as (width, out), transformers as linear layers (out, width)."""
_STACKED = ("q_proj", "k_proj", "v_proj")
"""transformers' thirds of OpenAI's `in_proj`, in this order."""
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""What OpenAI's and OpenCLIP's files hold beside weights; transformers' may hold `position_ids`."""


def is_transformers(names: Iterable[str]) -> bool:
    """Whether these are transformers' names, of one tower or both."""
    return any(name.startswith(("vision_model.", "text_model.embeddings.", "text_model.encoder.")) for name in names)


def is_openai(names: Iterable[str]) -> bool:
    """Whether these are OpenAI's and OpenCLIP's names of a model with a ViT."""
    return "visual.conv1.weight" in set(names) or "token_embedding.weight" in set(names)


def is_clip(names: Iterable[str]) -> bool:
    """Whether these are the names of a CLIP with a ViT, under any of the names that files use."""
    listed = list(names)
    return is_transformers(listed) or is_openai(listed)


def under_openai_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a CLIP under OpenAI's names, without the entries that are no weights."""
    given = {name: tensor for name, tensor in tensors.items() if name not in NO_WEIGHTS}
    return from_transformers(given) if is_transformers(given) else given


def to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under transformers' names, from OpenAI's, of one tower or both."""
    names = dict((*_IMAGE_PARTS, *_TEXT_PARTS))
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in names:
            found[names[name]] = tensor.T.contiguous() if name in _TRANSPOSED else tensor
            continue

        # OpenAI stacks queries, keys and values in one projection; transformers has three.
        ours, theirs, index, part = _split_block_name(name, our_names=True)
        if part.startswith("attn.in_proj_"):
            kind = part.removeprefix("attn.in_proj_")
            for third, rows in zip(_STACKED, tensor.chunk(3), strict=True):
                found[f"{theirs}{index}.self_attn.{third}.{kind}"] = rows.contiguous()
        else:
            found[f"{theirs}{index}.{_renamed(part, dict(_BLOCK_PARTS), name)}"] = tensor
    return found


def from_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under OpenAI's names, from transformers', of one tower or both.

    ValueError names a tensor that no model of CLIP has, and a third of a projection that is missing.
    """
    names = {theirs: ours for ours, theirs in (*_IMAGE_PARTS, *_TEXT_PARTS)}
    parts = {theirs: ours for ours, theirs in _BLOCK_PARTS}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(".position_ids"):
            continue
        if name in names:
            found[names[name]] = tensor.T.contiguous() if names[name] in _TRANSPOSED else tensor
            continue

        # Stack the three projections when the first is met; the others were read with it.
        ours, theirs, index, part = _split_block_name(name, our_names=False)
        stacked = re.fullmatch(r"self_attn\.([qkv]_proj)\.(weight|bias)", part)
        if stacked is None:
            found[f"{ours}{index}.{_renamed(part, parts, name)}"] = tensor
        elif stacked[1] == _STACKED[0]:
            thirds = [f"{theirs}{index}.self_attn.{third}.{stacked[2]}" for third in _STACKED]
            missing = [third for third in thirds if third not in tensors]
            if missing:
                raise ValueError(f"{missing[0]} is missing beside {name}")
            found[f"{ours}{index}.attn.in_proj_{stacked[2]}"] = torch.cat([tensors[third] for third in thirds])
    return found


def _split_block_name(name: str, our_names: bool) -> tuple[str, str, str, str]:
    """The prefix of the blocks under OpenAI's and transformers' names, the block's number, and the part's name."""
    for ours, theirs in _BLOCKS:
        prefix = ours if our_names else theirs
        index, _, part = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and index.isdigit() and part:
            return ours, theirs, index, part
    raise ValueError(f"{name} is no weight of CLIP with a ViT")


def _renamed(part: str, names: Mapping[str, str], name: str) -> str:
    layer, _, kind = part.rpartition(".")
    if layer not in names or kind not in ("weight", "bias"):
        raise ValueError(f"{name} is no weight of CLIP with a ViT")
    return f"{names[layer]}.{kind}"
