"""Sums and softmax in float32 or better, whatever the inputs are in and autocast says."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it is coarser, else as it is: float64 stays, as tests of equality need it to."""
    return tensor.to(at_least_float32_type(tensor))


def at_least_float32_type(tensor: Tensor) -> torch.dtype:
    """The type that `at_least_float32` gives."""
    return torch.promote_types(tensor.dtype, torch.float32)


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Compute in the tensors' own formats; also on devices that know no autocast, such as meta."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()
