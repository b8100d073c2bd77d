"""JSON without lost values: an object with a repeated key is refused, where `json` would keep the last value."""

import json
from typing import Any


class RepeatedKeyError(ValueError):
    """An object has a repeated key; the message names it."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The `object_pairs_hook` of a decoder that refuses repeated keys."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise RepeatedKeyError(f"key {repeated!r} stands twice in one object")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)  # `json.loads` would make one for each of millions of lines


def loads(text: str | bytes) -> Any:
    """The value of a JSON text; `RepeatedKeyError`, or what `json.loads` raises."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    return _DECODER.decode(text)
