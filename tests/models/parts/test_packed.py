"""Packed linear layers against plain ones, and where they can be had."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.parts.packed import can_pack, packed, packed_parts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7,), (2, 5), (2, 3, 4)], ids=str)
@torch.no_grad()
def test_packed_layers_equal_plain_ones(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    layer, tokens = nn.Linear(24, 36).to(dtype), torch.randn(*shape, 24, dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    expected = layer(tokens)
    torch.testing.assert_close(packed(layer, dtype)(tokens), expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(packed(layer, dtype, "gelu")(tokens), F.gelu(expected), atol=tolerance, rtol=tolerance)
    parts = packed_parts(layer, 3, dtype)
    assert len(parts) == 3
    together = torch.cat([part(tokens) for part in parts], dim=-1)
    torch.testing.assert_close(together, expected, atol=tolerance, rtol=tolerance)


@torch.no_grad()
def test_tokens_that_do_not_lie_in_a_row_are_taken_too() -> None:
    layer, tokens = nn.Linear(24, 36), torch.randn(3, 24, 5).transpose(1, 2)
    torch.testing.assert_close(packed(layer, torch.float32)(tokens), layer(tokens), atol=1e-5, rtol=1e-5)


def test_only_a_cpu_packs() -> None:
    assert can_pack(torch.zeros(1)) and can_pack(torch.zeros(1, dtype=torch.bfloat16))
    assert not can_pack(torch.zeros(1, dtype=torch.float64)) and not can_pack(torch.zeros(1, device="meta"))
