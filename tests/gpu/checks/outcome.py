"""What a check hands back, and how far two tensors are apart."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Status = Literal["passed", "failed", "missed", "skipped"]
SMALLEST_SHARE = 1e-2
"""Gradients are compared on the scale of the largest: one that is zero in theory has nothing but rounding in it."""


class CannotRun(Exception):
    """A check cannot be done here; the text says what it needs."""


class Reading(NamedTuple):
    """One number that was measured, and the bound it is to keep."""

    what: str
    value: float
    bound: float
    sense: Literal["<=", ">="] = "<="

    @property
    def holds(self) -> bool:
        """Whether it keeps its bound; what is not a number does not."""
        return self.value <= self.bound if self.sense == "<=" else self.value >= self.bound


class Finding(NamedTuple):
    """The readings of one check, and what else is worth a word."""

    readings: Sequence[Reading]
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table; `missed` is for goals of speed, which are no faults."""

    name: str
    status: Status
    readings: tuple[Reading, ...]
    note: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The row as plain values; JSON has no number for infinity, so that is written as a word."""
        return {
            "name": self.name,
            "status": self.status,
            "measured": {
                reading.what: reading.value if math.isfinite(reading.value) else str(reading.value)
                for reading in self.readings
            },
            "bound": {reading.what: f"{reading.sense} {reading.bound:g}" for reading in self.readings},
            "note": self.note,
            "seconds": round(self.seconds, 2),
        }


def difference(found: Tensor, expected: Tensor, least_scale: float = 0.0) -> float:
    """The largest difference over the largest value expected (or `least_scale`); NaN where either has one."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    found, expected = _in_double(found, expected)
    scale = max(float(expected.abs().max()), least_scale) or 1.0
    return float((found - expected).abs().max()) / scale


def distance(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over that of what was expected: for formats whose single values are coarse."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    found, expected = _in_double(found, expected)
    return float((found - expected).norm() / expected.norm())


def gradient_difference(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    """The largest `difference` of any gradient; infinite where only one side has one."""
    pairs = list(zip(found, expected, strict=True))
    if any((own is None) != (other is None) for own, other in pairs):
        return math.inf
    present = [(own, other) for own, other in pairs if own is not None and other is not None]
    largest = worst(float(other.abs().max()) for _, other in present)
    return worst(difference(own, other, SMALLEST_SHARE * largest) for own, other in present)


def worst(values: Iterable[float]) -> float:
    """The largest, but NaN if any is: Python's own `max` may pass over it."""
    every = list(values)
    return math.nan if any(map(math.isnan, every)) else max(every)


def not_finite(tensors: Sequence[Tensor | None]) -> int:
    """How many of the tensors hold a value that is no finite number."""
    return sum(not bool(tensor.isfinite().all()) for tensor in tensors if tensor is not None)


def _in_double(found: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Both where `expected` is."""
    return found.detach().to(expected.device, torch.float64), expected.detach().double()
