"""What a loss' gradient is computed by."""

from collections.abc import Iterator

from torch import Tensor

UNORDERED = {"IndexBackward0"}
"""The gradient of `tensor[rows]`: threads add to shared rows as they come, where `index_select` keeps an order."""


def operations_of(loss: Tensor) -> set[str]:
    """The names of all operations that backward goes through."""

    def walk() -> Iterator[str]:
        seen, waiting = set(), [loss.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in seen:
                seen.add(node)
                yield type(node).__name__
                waiting += [following for following, _ in node.next_functions]

    return set(walk())
