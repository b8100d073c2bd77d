"""The learning rates and weight decays of TVTSv2's parameters in pre-training."""

from collections.abc import Iterable
from typing import Literal

from torch import nn

NEW = ("timeattn.", "ln_3.", "pred_model.")
"""Substrings in the names of parameters that CLIP does not have; these learn a thousand times faster."""
UNDECAYED = ("bias", "LayerNorm", "ln_", "norm")
"""Substrings in the names of parameters without weight decay."""


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
