"""What the losses of one batch ask of the processes that share it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Summed(NamedTuple):
    """The total () of a loss, and the number () of its terms, so that processes can be added up before they divide."""

    total: Tensor
    terms: Tensor

    @property
    def mean(self) -> Tensor:
        """The loss of this batch alone; 0 if it has no term."""
        return self.total / self.terms.clamp(min=1)

    def plus(self, other: "Summed") -> "Summed":
        """Both together."""
        return Summed(self.total + other.total, self.terms + other.terms)


def itself(tensor: Tensor) -> Tensor:
    """What a process that is alone gathers, and sums."""
    return tensor


@dataclass(frozen=True)
class Processes:
    """Those that share a batch, in equal parts.

    Attributes:
        gather: rows of all processes in their order; the gradient of a row is summed over all of them.
        add: the sum over processes, without gradient.
    """

    rank: int = 0
    count: int = 1
    gather: Callable[[Tensor], Tensor] = itself
    add: Callable[[Tensor], Tensor] = itself

    def share(self, loss: Summed) -> Tensor:
        """This process' part of a loss, scaled so that the mean over processes is that of all terms."""
        return loss.total * self.count / self.add(loss.terms).clamp(min=1)

    def own(self, rows: Tensor) -> Tensor:
        """This process' part of the rows of all."""
        return rows.chunk(self.count)[self.rank]
