"""What an adapter reads from a file: its weights under our names, and what else the file holds."""

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
        kind: the kind of file, in words.
        weights: the tensors that a model could take.
        left: the names that are not among them, by reason.
        rest_is_fresh: True for a file that holds an encoder alone: the other parts of the model keep fresh weights.
        note: what a user of such a file must know; may be empty.
    """

    kind: str
    weights: Mapping[str, Tensor]
    left: Mapping[str, list[str]] = field(default_factory=dict)
    rest_is_fresh: bool = False
    note: str = ""


@dataclass
class FittedPart:
    """Weights for one part of a model, notes on what changed, and the names it does not use, by reason."""

    weights: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)


OTHER_VOCABULARY = "take the tokenizer it was made with"
"""The remedy for a table of words that has another number of rows."""


def part_of(name: str) -> str:
    """The part of the model that a tensor belongs to, the first of its dotted names."""
    return name.partition(".")[0]


def parts_of(names: Iterable[str]) -> set[str]:
    """The parts that tensors belong to."""
    return {part_of(name) for name in names}


def grouped(names: Iterable[str]) -> list[str]:
    """Names with `*` for every number, each listed once, with its count if above 1.

    Example: `["a.0.b", "a.1.b", "c"]` gives `["a.*.b (2)", "c"]`.
    """
    counts = Counter(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names)
    return [f"{name} ({count})" if count > 1 else name for name, count in counts.items()]
