"""Asynchronous copies from the host to the device."""

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to `device`. On a GPU the copy is asynchronous, which takes pinned memory."""
    if device.type == "cuda":
        tensor = tensor.contiguous().pin_memory()
    return tensor.to(device, non_blocking=True)
