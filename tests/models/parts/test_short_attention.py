"""Attention of short sequences against the plain formula."""

import pytest
import torch
from torch import Tensor

from models.parts import short_attention
from models.parts.packed import can_pack
from models.parts.short_attention import attend_from_one, attend_in_short, suits_short

pytestmark = pytest.mark.skipif(not can_pack(torch.zeros(1)), reason="this torch lacks oneDNN's products")

HEADS, WIDTH = 3, 8


def tensors(num_queries: int, num_keys: int, groups: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries (B, N, G, H, K), keys and values (B, M, G, H, K), strided as of one product, and biases (B, G, M)."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, groups, num_queries, 2, HEADS, WIDTH, generator=generator)[:, :, :, 1].transpose(1, 2)
    key, value = torch.randn(2, num_keys, groups, 2, HEADS, WIDTH, generator=generator).unbind(dim=3)
    bias = torch.rand(2, groups, num_keys, generator=generator).mul(300).add(1).log()
    return query.to(dtype), key.to(dtype), value.to(dtype), bias


def formula(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Attention as it is written, in float64."""
    scores = torch.einsum("bnghk,bmghk->bghnm", query.double(), key.double()) * WIDTH**-0.5
    if bias is not None:
        scores = scores + bias.double()[:, :, None, None]
    return torch.einsum("bghnm,bmghk->bnghk", scores.softmax(dim=-1), value.double())


# 5 and 16 keys go in one batch, others by sequence: of one tile and several, of a whole number of vectors and not.
@pytest.mark.parametrize(("num_queries", "num_keys"), [(4, 5), (16, 16), (12, 13), (36, 37), (48, 48), (1, 50)])
@pytest.mark.parametrize("at_once", [2**20, 500])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@torch.no_grad()
def test_equals_the_formula(
    num_queries: int,
    num_keys: int,
    at_once: int,
    biased: bool,
    dtype: torch.dtype,
    apart: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(short_attention, "SCORES_AT_ONCE", at_once)
    query, key, value, bias = tensors(num_queries, num_keys, 4, dtype)
    keys, values = ((part[:, :1], part[:, 1:]) for part in (key, value))
    out = torch.full_like(query, torch.nan)
    attend_in_short(query, keys, values, bias if biased else None, out)
    expected = formula(query, key, value, bias if biased else None)
    torch.testing.assert_close(out.double(), expected, atol=apart, rtol=apart)


@pytest.mark.parametrize("num_keys", [7, 40])
@torch.no_grad()
def test_large_scores_neither_overflow_nor_vanish(num_keys: int) -> None:
    query, key, value, bias = tensors(num_keys, num_keys, 2, torch.float32)
    out = torch.empty_like(query)
    attend_in_short(1000 * query, (key,), (value,), bias, out)
    torch.testing.assert_close(out.double(), formula(1000 * query, key, value, bias), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("biased", [False, True])
@torch.no_grad()
def test_one_query_equals_the_formula(biased: bool) -> None:
    query, key, value, bias = tensors(1, 40, 1, torch.float32)
    context = attend_from_one(query[:, 0, 0], key[:, :, 0], value[:, :, 0], bias[:, 0] if biased else None)
    expected = formula(query, key, value, bias if biased else None)[:, 0, 0]
    torch.testing.assert_close(context.double(), expected, atol=1e-5, rtol=1e-5)


def test_gradients_and_other_lengths_use_torchs_kernel() -> None:
    query = torch.zeros(1)
    assert not suits_short(query, 13)
    with torch.no_grad():
        assert suits_short(query, 13) and suits_short(query, 197)
        assert not suits_short(query, 60) and not suits_short(query, 3600)
        assert not suits_short(query.double(), 13)
