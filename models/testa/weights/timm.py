"""A plain ViT of timm: class token, position embedding with a place for it, pre-norm blocks. Also DeiT's and MAE's."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from models.checkpoints.stored import Stored

ENCODER = "visual_encoder"

HEADS = ("head.", "head_dist.", "pre_logits.")
"""Classifiers, which a video encoder has no use for."""
OTHER_ARCHITECTURE = {
    r"norm_pre\.": "has a norm before its first block, as CLIP's",
    r"reg_token": "has register tokens",
    r"dist_token": "has a distillation token",
    r"fc_norm\.": "pools before its last norm",
    r"attn_pool\.": "pools by attention",
    r"blocks\.\d+\.(ls\d\.|gamma)": "scales its layers' outputs (LayerScale)",
    r"blocks\.\d+\.attn\.(q_norm|k_norm)\.": "norms its queries and keys",
    r"blocks\.\d+\.attn\.(relative_position|q_bias|v_bias)": "has relative positions, as BEiT's",
    r"patch_embed\.(backbone|norm|proj\.0)": "has another patch embedding",
}
"""Names of ViTs that compute something else than ours, and what that is."""
NOTE = "timm's ViTs differ in the pixels they expect: set video.pixel_mean and video.pixel_std to the file's"


def matches(names: Iterable[str]) -> bool:
    """Whether these are the names of a ViT alone."""
    return {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= set(names)


def read(tensors: Mapping[str, Tensor]) -> Stored:
    """The encoder's weights; `ValueError` if the ViT is of another architecture than ours."""
    for pattern, words in OTHER_ARCHITECTURE.items():
        found = next((name for name in tensors if re.match(pattern, name)), None)
        if found is not None:
            raise ValueError(f"this ViT {words} ({found}); a plain one with a class token is needed")
    if "cls_token" not in tensors:
        raise ValueError("this ViT has no class token (cls_token); one with a class token is needed")
    places = tensors["pos_embed"].shape[1] if "pos_embed" in tensors else 0
    if places and round(places**0.5) ** 2 == places:
        raise ValueError(f"this ViT's pos_embed of {places} places has none for the class token; ours has one more")
    heads = [name for name in tensors if name.startswith(HEADS)]
    weights = {f"{ENCODER}.{name}": tensor for name, tensor in tensors.items() if name not in heads}
    left = {"classifier": heads} if heads else {}
    return Stored("a ViT of timm", weights, left, rest_is_fresh=True, note=NOTE)
