"""Sums and softmax in float32 or better, whatever the inputs are in."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it is coarser, else as it is: float64 stays, as tests of equality need it to."""
    return tensor.to(at_least_float32_type(tensor))


def at_least_float32_type(tensor: Tensor) -> torch.dtype:
    """The type that `at_least_float32` gives."""
    return torch.promote_types(tensor.dtype, torch.float32)
