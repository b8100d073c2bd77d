"""What a case says in its metadata beside tensors, compared with what we do."""

from collections.abc import Set
from typing import Any

from tests.parity.cases import Meta

Differing = list[str]
"""Names of the facts that differ."""


def compare_facts(meta: Meta, **found: Any) -> Differing:
    """The names of the facts that are not as the case has them; sets are compared with lists of any order."""
    differing = []
    for name, value in found.items():
        expected = meta[name]
        if isinstance(value, Set):
            same = value == set(expected) and len(value) == len(expected)
        else:
            same = value == expected
        if not same:
            differing.append(name)
    return differing
