"""Linear layers for inference on a CPU, their weights in the order that oneDNN multiplies fastest."""

from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["none", "gelu", "swish"]


class PackedLinear(nn.Module):
    """`nn.Linear` with weights (out, in) packed once, at construction, and an optional activation in the same pass.

    Computes in the weights' dtype, whatever autocast says. It has no parameters, so it is neither trained nor stored.
    Use it for inputs of few sizes, such as videos but not texts: oneDNN keeps a megabyte of code for each size.
    """

    def __init__(self, weight: Tensor, bias: Tensor, activation: Activation = "none") -> None:
        super().__init__()
        self.dtype, self.bias, self.activation = weight.dtype, bias.detach().clone(), activation
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return torch.ops.mkldnn._linear_pointwise(
            tokens.to(self.dtype), self.weight, self.bias, self.activation, [], "none"
        )


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Rows (Q, K) times rows (N, K), plus a bias (N,): (Q, N). Only if `can_pack` allows it."""
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")


def sigmoid_product(left: Tensor, right: Tensor, bias: Tensor) -> Tensor:
    """The sigmoid of `product`, in the same pass."""
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, "sigmoid", [], "")


def can_pack(weight: Tensor) -> bool:
    """Whether this torch, on this device, has the two operations, which are torch.compile's own and not public."""
    available = torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )
    return available and weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16)


def packed(layer: nn.Linear, dtype: torch.dtype, activation: Activation = "none") -> PackedLinear:
    """A linear layer, packed to compute in `dtype`."""
    return PackedLinear(layer.weight.to(dtype), layer.bias.to(dtype), activation)


def packed_parts(layer: nn.Linear, parts: int, dtype: torch.dtype) -> nn.ModuleList:
    """Split a linear layer into `parts` packed ones, each with an equal share of its outputs."""
    shares = zip(layer.weight.to(dtype).chunk(parts), layer.bias.to(dtype).chunk(parts), strict=True)
    return nn.ModuleList(PackedLinear(weight, bias) for weight, bias in shares)
