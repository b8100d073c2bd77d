"""YAML values as the types of fields, and the words for those that do not fit."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from ruamel.yaml import YAML

from configs.load import from_dict


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 3
    rate: float = 0.5
    name: str | None = None
    sizes: int | tuple[int, ...] = 0
    pair: tuple[float, float] = (0.0, 1.0)
    kinds: tuple[Literal["a", "b"], ...] = ()
    kind: Literal["a", "b"] = "a"
    fast: bool = False


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = field(default_factory=lambda: Inner(size=7, rate=0.25))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"rate": 2}, Inner(rate=2.0)),
        ({"sizes": 4}, Inner(sizes=4)),
        ({"sizes": [4, 5]}, Inner(sizes=(4, 5))),
        ({"sizes": []}, Inner(sizes=())),
        ({"pair": [1, 2.5]}, Inner(pair=(1.0, 2.5))),
        ({"kinds": ["b", "a"]}, Inner(kinds=("b", "a"))),
        ({"name": None}, Inner(name=None)),
        ({"name": "no"}, Inner(name="no")),
        ({"fast": True}, Inner(fast=True)),
    ],
)
def test_values_become_their_fields_types(values: dict[str, Any], expected: Inner) -> None:
    read = from_dict(Inner, values, "test")
    assert read == expected
    assert [type(value) for value in vars(read).values()] == [type(value) for value in vars(expected).values()]


@pytest.mark.parametrize(
    ("text", "found", "expected"),
    [
        ("size: 1.5", "1.5", "a whole number"),
        ("size: 1.0", "1.0", "a whole number"),
        ("size: true", "true", "a whole number"),
        ("size: null", "null", "a whole number"),
        ("size:", "null", "a whole number"),
        ("size: {}", "{}", "a whole number"),
        ("rate: true", "true", "a number"),
        ("rate: '1'", '"1"', "a number"),
        ("rate: .nan", "NaN", "a number"),
        ("rate: .inf", "Infinity", "a number"),
        ("name: 12", "12", "text or null"),
        ("name: 2024-01-01", '"2024-01-01"', "text or null"),
        ("sizes: [1, 2.0]", "[1, 2.0]", "a whole number or a list, each a whole number"),
        ("sizes: true", "true", "a whole number or a list, each a whole number"),
        ("pair: [1]", "[1]", "a list of 2: a number, a number"),
        ("pair: 1", "1", "a list of 2: a number, a number"),
        ("kinds: [a, c]", '["a", "c"]', "a list, each one of a, b"),
        ("kinds: a", '"a"', "a list, each one of a, b"),
        ("kind: A", '"A"', "one of a, b"),
        ("kind: [a]", '["a"]', "one of a, b"),
        ("fast: yes", '"yes"', "true or false"),  # YAML 1.2: text
        ("fast: 1", "1", "true or false"),
    ],
)
def test_a_wrong_type_names_key_value_and_expected_type(text: str, found: str, expected: str) -> None:
    values = YAML(typ="safe", pure=True).load(text)
    with pytest.raises(ValueError) as caught:
        from_dict(Outer, {"inner": values}, "config.yaml")
    assert str(caught.value) == f"config.yaml: inner.{next(iter(values))}: found {found}, expected {expected}"


@pytest.mark.parametrize(("value", "found"), [(3, "3"), ([1], "[1]"), (None, "null")])
def test_a_value_in_place_of_a_section_is_refused(value: Any, found: str) -> None:
    with pytest.raises(ValueError) as caught:
        from_dict(Outer, {"inner": value}, "config.yaml")
    assert str(caught.value) == f"config.yaml: inner: found {found}, expected a section of keys and values"


def test_a_section_in_part_keeps_the_rest_of_the_default_it_replaces() -> None:
    assert from_dict(Outer, {"inner": {"size": 1}}, "test").inner == Inner(size=1, rate=0.25)
