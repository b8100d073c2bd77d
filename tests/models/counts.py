"""Count the rows that go through linear layers, which is what a fast path saves."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def counted_rows(module: nn.Module) -> Iterator[Counter[str]]:
    """Rows through each linear layer by its name in `module`, filled while the context is open."""
    rows: Counter[str] = Counter()

    def hook(name: str) -> Any:
        def count(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            rows[name] += output[..., 0].numel()

        return count

    linear = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    handles = [part.register_forward_hook(hook(name)) for name, part in linear.items()]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()
