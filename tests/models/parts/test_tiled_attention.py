"""Attention in tiles against torch's kernel and the plain formulas."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts import tiled_attention
from models.parts.attention import MOST_TOKENS_BY_HEAD, Attention
from models.parts.packed import can_pack
from models.parts.sharpness import sharpness
from models.parts.tiled_attention import attend_in_tiles, attend_in_tiles_with_sharpness, suits_tiles

pytestmark = pytest.mark.skipif(not can_pack(torch.zeros(1)), reason="this torch lacks oneDNN's products")


def tensors(tokens: int = 53) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values (B, N, H, K), strided as of one product, and sizes (B, N)."""
    generator = torch.Generator().manual_seed(0)
    together = torch.randn(2, tokens, 3, 4, 8, generator=generator)
    query, key, value = together.unbind(dim=2)
    return query, key, value, 0.5 + torch.rand(2, tokens, generator=generator)


@pytest.mark.parametrize("at_once", [7, 53, 256])
@pytest.mark.parametrize("sized", [False, True])
@torch.no_grad()
def test_tiles_equal_torchs_kernel(at_once: int, sized: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled_attention, "QUERIES_AT_ONCE", at_once)
    query, key, value, size = tensors()
    bias = size.log() if sized else None
    mask = None if bias is None else bias[:, None, None]
    expected = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (query, key, value)), attn_mask=mask)
    torch.testing.assert_close(attend_in_tiles(query, key, value, bias), expected.transpose(1, 2))

    context, sharp = attend_in_tiles_with_sharpness(query, key, value, size if sized else None)
    torch.testing.assert_close(context, expected.transpose(1, 2))
    torch.testing.assert_close(sharp, sharpness(query, key))


@torch.no_grad()
def test_attention_of_many_tokens_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention, tokens = Attention(32, 4), torch.randn(2, MOST_TOKENS_BY_HEAD + 1, 1, 32)
    bias = torch.rand(2, 1, MOST_TOKENS_BY_HEAD + 1)
    found = attention(tokens, bias).context
    monkeypatch.setattr("models.parts.attention.suits_tiles", lambda _: False)
    torch.testing.assert_close(found, attention(tokens, bias).context)


@pytest.mark.parametrize("sized", [False, True])
@torch.no_grad()
def test_in_bfloat16_they_are_about_as_exact_as_torchs_kernel(sized: bool) -> None:
    query, key, value, size = tensors(600)
    # Scores of -12 to 12, as trained models have them, where rounding matters.
    query, key, value = ((2.0 * part).bfloat16() for part in (query, key, value))
    exact = [part.double().transpose(1, 2) for part in (query, key, value)]
    bias = size.log() if sized else None
    mask = None if bias is None else bias[:, None, None]
    expected = F.scaled_dot_product_attention(*exact, attn_mask=None if mask is None else mask.double()).transpose(1, 2)
    rounded = F.scaled_dot_product_attention(
        *(part.transpose(1, 2) for part in (query, key, value)), attn_mask=None if mask is None else mask.bfloat16()
    ).transpose(1, 2)

    tiled = attend_in_tiles(query, key, value, bias)
    context, sharp = attend_in_tiles_with_sharpness(query, key, value, size if sized else None)
    assert tiled.dtype == context.dtype == torch.bfloat16 and sharp.dtype == torch.float32
    error = (rounded.double() - expected).norm()
    assert (tiled.double() - expected).norm() < 1.5 * error
    # Values times sizes are rounded, too.
    assert (context.double() - expected).norm() < (2.0 if sized else 1.5) * error
    torch.testing.assert_close(sharp, sharpness(query.float(), key.float()), rtol=0.01, atol=0.01)


def test_they_are_for_inference_in_float32_and_bfloat16() -> None:
    query = torch.zeros(1)
    assert not suits_tiles(query)
    with torch.no_grad():
        assert suits_tiles(query) and suits_tiles(query.bfloat16())
        assert not suits_tiles(query.double()) and not suits_tiles(query.to("meta"))
