"""What a machine can do at best of an encoder's work: every matrix product at the best rate measured for its shape.

The products are those that a forward pass hands to PyTorch, recorded on the meta device. Attention's, and the matching
of tokens, are counted at the mean rate of the linear layers; all that is no matrix product is counted as free.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from models.parts.packed import PackedLinear, can_pack

REPEATS = 3
GPU_LAUNCHES = 20
"""Products between two readings of a GPU's clock, which costs as much as a small product does."""

Shape = tuple[int, int, int]
"""Rows, inner, columns: (rows, inner) times (inner, columns)."""


@dataclass(frozen=True)
class Products:
    """The matrix products of one forward pass.

    Attributes:
        linear: how often each shape is multiplied by weights.
        other_macs: multiply-accumulates of all other products: in attention, and of tokens with tokens.
    """

    linear: Counter[Shape]
    other_macs: int

    @property
    def linear_macs(self) -> int:
        """Multiply-accumulates of the linear layers."""
        return sum(count * rows * inner * columns for (rows, inner, columns), count in self.linear.items())

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return self.linear_macs + self.other_macs


class _LinearRecorder(TorchDispatchMode):
    """Counts the shapes of products with a matrix, and of convolutions without overlap, which are such products."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[Shape] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        operation = func.overloadpacket
        if operation in (torch.ops.aten.mm, torch.ops.aten.addmm):
            left, right = args[-2:]
            self.shapes[(left.shape[0], left.shape[1], right.shape[1])] += 1
        elif operation is torch.ops.aten.convolution:
            kernel = args[1]
            self.shapes[(result.numel() // len(kernel), kernel[0].numel(), len(kernel))] += 1
        return result


def record(module: nn.Module, *inputs: Tensor) -> Products:
    """The products of one forward pass without gradient of a module and inputs on the meta device."""
    assert all(tensor.is_meta for tensor in (*module.parameters(), *inputs))
    recorder = _LinearRecorder()
    with torch.no_grad(), FlopCounterMode(display=False) as counter, recorder:
        module(*inputs)
    linear = Products(recorder.shapes, 0)
    return Products(recorder.shapes, counter.get_total_flops() // 2 - linear.linear_macs)


class MachineLimit:
    """Measures the least time of some products on a device; called, it measures again and returns the sum in seconds.

    Of the ways to multiply, all are measured by the first call, and the two that were fastest then by later ones.
    """

    def __init__(self, products: Products, device: torch.device, dtype: torch.dtype) -> None:
        self.products, self.device, self.dtype = products, device, dtype
        self._fastest: dict[Shape, list[str]] = {}

    def __call__(self) -> float:
        """Seconds of all products, with attention's at the mean rate of the linear layers."""
        linear = sum(count * self._seconds(shape) for shape, count in self.products.linear.items())
        return linear * self.products.macs / self.products.linear_macs

    def _seconds(self, shape: Shape) -> float:
        """The least time of one product."""
        ways = ways_to_multiply(shape, self.device, self.dtype)
        seconds = {name: _least_seconds(ways[name], self.device) for name in self._fastest.get(shape, ways)}
        self._fastest[shape] = sorted(seconds, key=lambda name: seconds[name])[:2]
        return min(seconds.values())


def ways_to_multiply(shape: Shape, device: torch.device, dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """Ways to multiply random tokens (rows, inner) by weights, everything that can be allocated before allocated."""
    rows, inner, columns = shape
    tokens = torch.randn(rows, inner, device=device).to(dtype)
    weight = (torch.randn(columns, inner, device=device) * inner**-0.5).to(dtype)
    transposed, bias = weight.t().contiguous(), torch.zeros(columns, device=device, dtype=dtype)
    output = torch.empty(rows, columns, device=device, dtype=dtype)
    ways: dict[str, Callable[[], Tensor]] = {
        "mm": lambda: torch.mm(tokens, weight.t(), out=output),
        "linear": lambda: F.linear(tokens, weight, bias),
        "addmm": lambda: torch.addmm(bias, tokens, transposed, out=output),
    }
    if can_pack(weight):
        ways["packed"] = partial(PackedLinear(weight, bias), tokens)
        for_rows = PackedLinear(weight, bias)
        for_rows.weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        ways["packed for these rows"] = partial(for_rows, tokens)

    return ways


def _least_seconds(multiply: Callable[[], Tensor], device: torch.device) -> float:
    with torch.no_grad():
        multiply()
        return min(_seconds_of_one(multiply, device) for _ in range(REPEATS))


def _seconds_of_one(multiply: Callable[[], Tensor], device: torch.device) -> float:
    if device.type == "cpu":
        start = time.perf_counter()
        multiply()
        return time.perf_counter() - start
    start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start_event.record()
    for _ in range(GPU_LAUNCHES):
        multiply()
    end_event.record()
    end_event.synchronize()
    return start_event.elapsed_time(end_event) / 1e3 / GPU_LAUNCHES
