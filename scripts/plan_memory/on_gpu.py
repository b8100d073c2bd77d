"""What a GPU would run where our code, on a CPU, takes another way: attention of texts with dropout."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

IS_CUDA: Callable[[Tensor], bool] = torch.Tensor.is_cuda.__get__  # type: ignore[attr-defined]


class AsOnGpu(TorchFunctionMode):
    """Within this context tensors without values say that they are on a GPU, and attention keeps what a GPU's keeps.

    A fused kernel keeps queries, keys, values, its output and a normaliser a query, whatever its dropout; a boolean
    mask is made numbers of the queries' format. Where a size depends on values, it is taken to be the largest: a mask
    selects everything. `longest` answers whatever the host asks for, which is how many tokens
    the texts of a step have: no number that it divides by changes a size.
    """

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.longest = longest

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == IS_CUDA:  # created at each access, so not `is`
            return True
        if func in (Tensor.__int__, Tensor.item, Tensor.tolist):
            return np.full(args[0].shape, self.longest).tolist()
        if func is Tensor.numpy:
            return np.full(args[0].shape, self.longest)
        if func is Tensor.nonzero:
            return _all_places(args[0].shape, args[0].device)
        if func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[1].dtype == torch.bool:
            return args[0].flatten(0, args[1].dim() - 1)
        if func is F.scaled_dot_product_attention:
            query, keys, values = args[:3]
            return _fused_attention(query, keys, values, kwargs.get("attn_mask"))
        return func(*args, **kwargs)


def _fused_attention(query: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None) -> Tensor:
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
    # The CPU's own fused kernel, which is also taken through the public function; that one has none with dropout.
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return fused(query, keys, values, 0.0, False, attn_mask=attn_mask)[0]


def _all_places(shape: torch.Size, device: torch.device) -> Tensor:
    """The indices (N, dimensions) of all N places of a mask."""
    places = [torch.arange(size, device=device) for size in shape]
    return torch.cartesian_prod(*places).reshape(-1, len(shape))
