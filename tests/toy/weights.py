"""The files that start the toy: our own checkpoints, and "published" ones with names of their own."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from models.checkpoints import native
from models.checkpoints.stored import Stored

PREFIXES = {
    "eye.rgb.": "colour.",
    "eye.stack.": "layers.",
    "ear.table.": "words.",
    "eye.out.": "video_head.",
    "ear.out.": "text_head.",
    "pair.judge.": "judge.",
}
"""The published names' beginnings, and ours; in a block, `w` and `b` stand for `mix.weight` and `mix.bias`."""
IN_BLOCK = {"w": "mix.weight", "b": "mix.bias"}
COUNTER = "steps"


class PublishedFile:
    """A file as the toy's authors would have published it, with a counter that is no weight."""

    def matches(self, names: Iterable[str]) -> bool:
        return any(name.startswith("eye.rgb.") for name in names)

    def read(self, tensors: Mapping[str, Tensor]) -> Stored:
        weights = {our_name(name): tensor for name, tensor in tensors.items() if name != COUNTER}
        return Stored("the toy's published file", weights, {"it is no weight": [COUNTER]})


class Fitted(NamedTuple):
    weights: dict[str, Tensor]
    notes: list[str]
    left: dict[str, list[str]]


class ToyFormats:
    adapters: tuple[Any, ...] = (native, PublishedFile())
    known_files = "no checkpoint of this project nor the toy's"
    found_in: Mapping[str, str] = {}
    otherwise_found_in = "the toy's published file"

    def fit_part(self, part: str, found: dict[str, Tensor], own: dict[str, Tensor]) -> Fitted:
        return Fitted(found, [], {})


def our_name(published: str) -> str:
    prefix = next(prefix for prefix in PREFIXES if published.startswith(prefix))
    rest = published.removeprefix(prefix)
    if prefix == "eye.stack.":
        block, _, part = rest.partition(".")
        rest = f"{block}.{IN_BLOCK[part]}"
    return PREFIXES[prefix] + rest


FORMATS = ToyFormats()
