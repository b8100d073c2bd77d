"""JSON in which no value is lost: an object that names a key twice is refused, where `json` keeps the last value."""

import json
from typing import Any


class RepeatedKeyError(ValueError):
    """An object names a key twice; the text says which and what to do."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The `object_pairs_hook` of a decoder that refuses repeated keys."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise RepeatedKeyError(f"key {repeated!r} stands twice in one object")
    return fields


def loads(text: str | bytes) -> Any:
    """The value of a JSON text; `RepeatedKeyError`, or what `json.loads` raises."""
    return json.loads(text, object_pairs_hook=unique_keys)
