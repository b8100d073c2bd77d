"""What an adapter makes of somebody's file: its weights under our names, and what of it are no weights."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

TWIN_SUFFIX = "_m"


@dataclass(frozen=True)
class Stored:
    """A file's weights under the names of the model, and of its `MomentumTwin` for parts that end in `_m`.

    Attributes:
        kind: what file it is, in words.
        weights: the tensors that a model could take.
        left: why some names of the file are not among them, and those names.
        rest_is_fresh: True for a file of an encoder alone: what it has not keeps the model's fresh weights.
        note: what a user of such a file has to know; empty if there is nothing.
    """

    kind: str
    weights: Mapping[str, Tensor]
    left: Mapping[str, list[str]] = field(default_factory=dict)
    rest_is_fresh: bool = False
    note: str = ""


@dataclass
class FittedPart:
    """Weights for one part of a model, what was done to them, and names that it has no use for with the reason."""

    weights: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)


def part_of(name: str) -> str:
    """The part of the model that a tensor belongs to, the first of its dotted names."""
    return name.partition(".")[0]


def grouped(names: Iterable[str]) -> list[str]:
    """Names with `*` for every number, each once with how often it occurs; whole parts by their name alone.

    Example: `["a.0.b", "a.1.b", "c"]` gives `["a.*.b (2)", "c"]`.
    """
    counts = Counter(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names)
    return [f"{name} ({count})" if count > 1 else name for name, count in counts.items()]
