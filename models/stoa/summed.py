"""A loss as a sum and what it is divided by, so that processes and micro-batches can be added up first."""

from typing import NamedTuple

from torch import Tensor


class Summed(NamedTuple):
    """The total () of a loss, and the number () of its terms."""

    total: Tensor
    terms: Tensor

    @property
    def mean(self) -> Tensor:
        """The loss of this batch alone; 0 if it has no term."""
        return self.total / self.terms.clamp(min=1)

    def plus(self, other: "Summed") -> "Summed":
        """Both together."""
        return Summed(self.total + other.total, self.terms + other.terms)
