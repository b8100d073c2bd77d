"""TVTSv2's objectives as functions of tensors, and the learning rates of its parameters.

Shapes: G clips of all processes, B of this one, K transcripts a clip, E shared width.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.losses import similarities

TEMPERATURE = 0.05
SORT_WEIGHT = 2.0
SMALLEST_NORM = 1e-8
NEW = ("timeattn.", "ln_3.", "pred_model.")
"""Substrings in the names of parameters that CLIP does not have; these learn a thousand times faster."""
UNDECAYED = ("bias", "LayerNorm", "ln_", "norm")
"""Substrings in the names of parameters without weight decay."""


def cosine_matrix(video_GE: Tensor, text_GE: Tensor) -> Tensor:
    """Cosines (G, G), float32, videos in rows."""
    video, text = (F.normalize(part.float(), dim=-1, eps=SMALLEST_NORM) for part in (video_GE, text_GE))
    return similarities(video, text)


def contrastive_loss(video_GE: Tensor, text_GE: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Cross-entropy of video-to-text plus text-to-video retrieval; row i belongs to row i."""
    logits = cosine_matrix(video_GE, text_GE) / temperature
    targets = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)


def sorting_loss(order_logits: Tensor, order_BK: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of each transcript's place; by default the transcripts are in order of time."""
    batch, num_texts, _ = order_logits.shape
    if order_BK is None:
        order_BK = torch.arange(num_texts, device=order_logits.device).expand(batch, -1)
    return F.cross_entropy(order_logits.float().flatten(0, 1), order_BK.flatten())


@torch.no_grad()
def sorted_right(order_logits: Tensor, order_BK: Tensor | None = None) -> Tensor:
    """Whether all transcripts of a clip are sorted correctly, bool (B,)."""
    num_texts = order_logits.shape[1]
    expected = torch.arange(num_texts, device=order_logits.device) if order_BK is None else order_BK
    return (order_logits.argmax(dim=-1) == expected).all(dim=-1)


def own_slice(own_BE: Tensor, gathered_GE: Tensor, first_row: int) -> Tensor:
    """The rows `gathered_GE` of all processes, with gradient only for this process' own rows.

    With W processes, whose gradients are averaged, the contrastive gradient is 1 / W of the true one; this is what
    the reference does. By default gather with summed gradients, which depends on no number of processes.
    """
    gathered, end = gathered_GE.detach(), first_row + len(own_BE)
    return torch.cat([gathered[:first_row], own_BE, gathered[end:]])


def parameter_groups(
    names: Iterable[str],
    lr_new: float = 1e-4,
    lr_clip: float = 1e-7,
    weight_decay: float = 0.05,
    temporal_embedding: Literal["new", "clip"] = "new",
) -> list[dict[str, object]]:
    """Learning rate, weight decay and names of the four groups: new or CLIP's parameters, with and without decay.

    The temporal embedding starts at random. The reference trains it as slowly as CLIP's weights, so it hardly moves;
    `temporal_embedding="clip"` does the same.
    """
    groups: dict[tuple[float, float], list[str]] = {}
    for rate in (lr_new, lr_clip):
        for decay in (weight_decay, 0.0):
            groups[rate, decay] = []

    # Sort each name into its group by substrings; empty groups are left out.
    for name in names:
        is_new = any(part in name for part in NEW) or (
            temporal_embedding == "new" and name.endswith("temporal_embedding")
        )
        decay = 0.0 if any(part in name for part in UNDECAYED) else weight_decay
        groups[lr_new if is_new else lr_clip, decay].append(name)
    return [{"lr": rate, "weight_decay": decay, "names": held} for (rate, decay), held in groups.items() if held]


def trained_names(model: nn.Module) -> list[str]:
    """Names of the parameters that are trained."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]
