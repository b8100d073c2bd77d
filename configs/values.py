"""Convert one YAML value to the type of its field, and describe both in words for error messages."""

import json
import math
from dataclasses import MISSING
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin


class WrongTypeError(Exception):
    """A value does not fit its field's type."""


def convert(expected: Any, value: Any) -> Any:
    """`value` as the type `expected`: lists become tuples, whole numbers become floats where a float is due."""
    kind, members = get_origin(expected), get_args(expected)
    if expected is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if expected in (str, int, bool, NoneType) and type(value) is expected:  # not isinstance: a bool is no int here
        return value

    if kind is Literal and value in members:
        return value

    if kind is tuple and isinstance(value, list | tuple):
        kinds = members[:1] * len(value) if members[-1] is Ellipsis else members
        if len(kinds) == len(value):
            return tuple(map(convert, kinds, value))

    # The first member that fits wins.
    if kind in (Union, UnionType):
        for member in members:
            try:
                return convert(member, value)
            except WrongTypeError:
                continue

    raise WrongTypeError


def described(expected: Any) -> str:
    """A field's type in words."""
    kind, members = get_origin(expected), get_args(expected)
    if kind is Literal:
        return f"one of {', '.join(members)}"
    if kind is tuple and members[-1] is Ellipsis:
        return f"a list, each {described(members[0])}"
    if kind is tuple:
        return f"a list of {len(members)}: {', '.join(map(described, members))}"
    if kind in (Union, UnionType):
        return " or ".join(map(described, members))
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
    return words.get(expected, "a section of keys and values")


def shown(value: Any) -> str:
    """A value on one line, as YAML would show it."""
    return "nothing" if value is MISSING else json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)


def differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    """One line `key: a -> b` for every setting that differs between two results of `to_dict`."""
    return [f"{key}: {left} -> {right}" for key, (left, right) in changes(a, b, prefix).items()]


def changes(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> dict[str, tuple[str, str]]:
    """The settings that differ between two results of `to_dict`: key -> both values, as users see them."""
    found: dict[str, tuple[str, str]] = {}
    for name in {**a, **b}:
        key, left, right = f"{prefix}{name}", a.get(name, MISSING), b.get(name, MISSING)
        if isinstance(left, dict) and isinstance(right, dict):
            found |= changes(left, right, f"{key}.")
        elif left != right:
            found[key] = (shown(left), shown(right))
    return found


def remedy(key: str, names: list[str]) -> str:
    """Suggest which of `names` the unknown `key` means.

    In this order: a sibling with the same initials (`lr` for `learning_rate`), a similar sibling, the same name in
    another section, the nearest sibling, the nearest name anywhere.
    """
    if key in names:  # "optim.lr: 1" in a file
        return f"write it inside its section: {': {'.join(key.split('.'))}: ...{'}' * key.count('.')}"

    section, _, leaf = key.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == section}
    initials = [siblings[name] for name in siblings if name == _initials(leaf) or leaf == _initials(name)]
    similar = [siblings[name] for name in get_close_matches(leaf, siblings, n=1)]
    namesakes = [name for name in names if name.rpartition(".")[2] == leaf]
    nearest = [siblings[name] for name in get_close_matches(leaf, siblings, n=1, cutoff=0)]
    anywhere = get_close_matches(key, names, n=1, cutoff=0)

    return f"did you mean {(initials or similar or namesakes or nearest or anywhere)[0]}?"


def _initials(name: str) -> str:
    words = name.split("_")
    return "".join(word[:1] for word in words) if len(words) > 1 else name
