"""Names of the published checkpoints, and of ours.

A published file is `pytorch_model.bin.<step>` (a bare state dict) or `restore.bin` (one beside the optimizer's state).
"""

import re
from collections.abc import Mapping

from torch import Tensor

from models.stoa.sizes import StoaSizes

PREFIX = "clip."
# Beginnings of published names, without their prefix, and of ours; the first that fits counts.
NAMES = (
    ("visual.transformer.object_encoder.", "visual.object_encoder."),
    ("visual.", "visual."),
    ("object_fusion.", "object_fusion."),
    ("object_act_fusion.", "object_act_fusion."),
    ("fusion_transformer.", "fusion.transformer."),
    ("fusion_positional_embedding", "fusion.positional_embedding"),
    ("token_embedding.", "text.token_embedding."),
    ("positional_embedding", "text.positional_embedding"),
    ("transformer.", "text.transformer."),
    ("ln_final.", "text.ln_final."),
    ("text_projection", "text.text_projection"),
    ("logit_scale", "logit_scale"),
    ("object_frame_pos_emb", "object_frame_pos_emb"),
    ("object_cls_embedding", "object_cls_embedding"),
    ("object_action", "object_action"),
    ("fusion_proj", "fusion_proj"),
    ("fusion_logit_bias", "fusion_logit_bias"),
    ("fusion_match_matrix", "fusion_match_matrix"),
    ("fusion_unmatch_matrix", "fusion_unmatch_matrix"),
)
# What the published model builds and never uses, or uses no more.
UNUSED = re.compile(
    r"(?:clip\.)?(?:object_fusion_positional_embedding|object_text_fusion_positional_embedding|object_alignment_proj"
    r"|object_logit_bias|lm_head\.|input_resolution|context_length|vocab_size"
    r"|object_(?:act_)?fusion\.(?:class_embedding|positional_embedding|conv1\.|ln_pre\.|transformer\.object_encoder\.))"
    r"|(?:obj_ln|obj_proj|cross|loss_fct)(?:\.|$)"
)


def own_name(published: str) -> str | None:
    """Our name of a published tensor; None if the model has no use for it."""
    if UNUSED.match(published):
        return None
    name = published.removeprefix(PREFIX)
    return next((ours + name.removeprefix(theirs) for theirs, ours in NAMES if name.startswith(theirs)), None)


def published_name(name: str) -> str:
    """The published name of one of our tensors."""
    theirs, ours = next((theirs, ours) for theirs, ours in NAMES if name.startswith(ours))
    return PREFIX + theirs + name.removeprefix(ours)


def fit_published(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """A published state dict under our names, in the shapes of `own`; then the names that are unused, and absent."""
    fitted: dict[str, Tensor] = {}
    unused: list[str] = []
    absent: list[str] = []
    wrong: list[str] = []

    for published, tensor in tensors.items():
        name = own_name(published)
        if name is None:
            unused.append(published)
            if not UNUSED.match(published):
                wrong.append(f"{published}: unknown name")
        elif name not in own:
            absent.append(published)
        elif tensor.squeeze().shape != own[name].squeeze().shape:
            wrong.append(f"{published}: has shape {tuple(tensor.shape)}, the model's is {tuple(own[name].shape)}")
        else:
            fitted[name] = tensor.float().reshape(own[name].shape)

    if wrong:
        listed = "\n  ".join(wrong[:20])
        raise ValueError(f"{source}: is of another model than `model` describes:\n  {listed}")
    return fitted, unused, absent


def to_published(state: Mapping[str, Tensor], sizes: StoaSizes) -> dict[str, Tensor]:
    """Our weights under the published names and in the published shapes.

    What the published code builds and never reads is not in it; that code keeps its fresh values for missing names.
    """
    published = {published_name(name): tensor for name, tensor in state.items()}
    action = f"{PREFIX}object_action"
    if action in published:
        published[action] = published[action].reshape(1, 1, sizes.num_actions, sizes.vision_width)
    return published
