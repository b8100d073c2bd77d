"""A stored case of a reference implementation: weights, inputs, outputs to match, and sizes in its metadata."""

import json
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from torch import Tensor

Tensors = dict[str, Tensor]
Meta = dict[str, Any]
Compute = Callable[[Tensors, Meta], Tensors]
"""What an adapter of a system does: compute the outputs of a case, by name, from its tensors and sizes."""


class Case(NamedTuple):
    """One NAME.safetensors: its name, all its tensors, and its `meta`."""

    name: str
    tensors: Tensors
    meta: Meta


def read_case(path: Path) -> Case:
    """Read a case; its metadata holds the sizes as JSON under `meta`."""
    with safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["meta"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return Case(path.stem, tensors, meta)


def weights_of(tensors: Tensors, prefix: str) -> Tensors:
    """The weights stored under `prefix`, without position ids, which are no weights."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and not name.endswith("position_ids")
    }


def outputs_to_match(tensors: Tensors, inputs: Set[str], weights: tuple[str, ...]) -> set[str]:
    """The names of a case's tensors that are neither inputs nor weights (whose names begin with one of `weights`)."""
    return {name for name in tensors if name not in inputs and not name.startswith(weights)}
