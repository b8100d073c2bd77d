"""Our own checkpoints: a task's `state_dict()`, with the model, the momentum twin and the queue side by side."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from models.checkpoints.stored import Stored

MODEL = "model."
TWIN = "objectives.twin."
QUEUE = "objectives.queue."
HEAD = "head."
"""A task's own classifier, which the task itself reads."""


def matches(names: Iterable[str]) -> bool:
    """Whether these are the names of one of our files."""
    return all(name.startswith((MODEL, "objectives.", HEAD)) for name in names)


def read(tensors: Mapping[str, Tensor]) -> Stored:
    """Model and twin without their prefixes. Skips the queue, whose entries belong to a training set."""
    weights: dict[str, Tensor] = {}
    left: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        own = re.match(f"(?:{re.escape(MODEL)}|{re.escape(TWIN)})(.*)", name)
        if own:
            weights[own[1]] = tensor
        else:
            reasons = {QUEUE: "queues start fresh", HEAD: "a classifier is its task's"}
            found = next((why for start, why in reasons.items() if name.startswith(start)), "neither model nor twin")
            left.setdefault(found, []).append(name)
    return Stored("a checkpoint of this project", weights, left)
