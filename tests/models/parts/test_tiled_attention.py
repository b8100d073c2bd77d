"""Attention in tiles against torch's kernel and the plain formulas."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts import tiled_attention
from models.parts.attention import MOST_TOKENS_BY_HEAD, Attention
from models.parts.packed import can_pack
from models.parts.sharpness import sharpness
from models.parts.short_attention import MOST_KEYS
from models.parts.tiled_attention import attend_in_tiles, attend_in_tiles_with_sharpness, suits_tiles

pytestmark = pytest.mark.skipif(not can_pack(torch.zeros(1)), reason="this torch lacks oneDNN's products")


def tensors(tokens: int = 53, width: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values (B, N, H, K), strided as of one product, and sizes (B, N)."""
    generator = torch.Generator().manual_seed(0)
    together = torch.randn(2, tokens, 3, 4, width, generator=generator)
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
    context, sharp = attend_in_tiles_with_sharpness(query, key, value, size if sized else None)
    torch.testing.assert_close(context, expected.transpose(1, 2))
    torch.testing.assert_close(sharp, sharpness(query, key))


def groups(tokens: int, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values (B, N, G, H, K), strided as of one product, and sizes (B, G, N) from 1 to 300."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(2, tokens, 3, 3, 4, 16, generator=generator).to(dtype).unbind(dim=3)
    return scale * query, key, value, 1 + 300 * torch.rand(2, 3, tokens, generator=generator) ** 6


def softmax_of(query: Tensor, key: Tensor, value: Tensor, size: Tensor | None) -> Tensor:
    """Attention as it is written, in float64."""
    scores = torch.einsum("bngdk,bmgdk->bgdnm", query.double(), key.double()) * query.shape[-1] ** -0.5
    if size is not None:
        scores = scores + size.double().log()[:, :, None, None]
    return torch.einsum("bgdnm,bmgdk->bngdk", scores.softmax(dim=-1), value.double())


# How large scores get decides which way is taken; each has to be right on its own.
@pytest.mark.parametrize("scale", [0.0, 1.0, 6.0, 300.0])
@pytest.mark.parametrize("way", ["as they come", "softmax"])
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("sized", [False, True])
@torch.no_grad()
def test_tiles_equal_the_formula(
    scale: float, way: str, dtype: torch.dtype, apart: float, sized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled_attention, "QUERIES_AT_ONCE", 30)
    if way == "softmax":
        monkeypatch.setattr(tiled_attention, "LEAST_LOG_TOTAL", 80.0)
    query, key, value, size = groups(70, scale, dtype)
    found = attend_in_tiles(query, key, value, size.log() if sized else None)
    expected = softmax_of(query, key, value, size if sized else None)
    assert found.dtype == dtype and found.shape == expected.shape
    apart *= max(1.0, scale / 10)  # rounding of the scores themselves
    torch.testing.assert_close(found.double(), expected, rtol=apart, atol=apart)


@torch.no_grad()
@pytest.mark.parametrize(
    ("scores", "served"),
    [
        ([0.0, 0.0], True),
        ([0.0, 5.5, -30.0], True),
        ([0.0, 6.5], False),  # the sigmoid is no exponential there
        ([0.0, -45.0], False),  # weights are lost
        ([0.0, -200.0], False),
        ([0.0, float("nan")], False),
    ],
)
def test_a_wrong_guess_of_the_scores_is_noticed(
    scores: list[float], served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of queries whose scores are one number for all keys, the first is the longest, and the only one looked at."""
    taken = []
    by_softmax = tiled_attention._attend_by_softmax
    monkeypatch.setattr(tiled_attention, "_attend_by_softmax", lambda *a: taken.append(a) or by_softmax(*a))
    monkeypatch.setattr(tiled_attention, "SAMPLED", 1)
    query, keys, context = torch.zeros(1, len(scores), 8), torch.zeros(1, 70, 8), torch.empty(len(scores), 1, 8)
    query[0, :, 0], query[0, 0, 1], keys[..., 0] = torch.tensor(scores), 1000.0, 1.0
    value = torch.randn(70, 1, 8, generator=torch.Generator().manual_seed(0))

    tiled_attention._attend_in_one_group(query, keys * 8**0.5, value, None, context)
    assert len(taken) == int(not served)
    right = torch.tensor(scores).isfinite()
    torch.testing.assert_close(context[right], value.mean(dim=0).expand_as(context)[right], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_attention_of_many_tokens_takes_them(
    places: int, dtype: torch.dtype, apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    attention = Attention(32, 4).to(dtype)
    more = max(MOST_TOKENS_BY_HEAD, MOST_KEYS) + 1
    tokens = torch.randn(2, more, places, 32).to(dtype)
    bias = torch.rand(2, places, more)
    found = attention(tokens, bias).context
    monkeypatch.setattr("models.parts.attention.suits_tiles", lambda _: False)
    expected = attention(tokens, bias).context
    assert not torch.equal(found, expected), "both took the same way"
    torch.testing.assert_close(found, expected, rtol=apart, atol=apart)


@pytest.mark.parametrize("width", [8, 64])
@pytest.mark.parametrize("sized", [False, True])
@torch.no_grad()
def test_in_bfloat16_they_are_about_as_exact_as_torchs_kernel(sized: bool, width: int) -> None:
    query, key, value, size = tensors(600, width)
    # Scores of -12 to 12, as trained models have them, where rounding matters.
    query, key, value = ((2.0 * part).bfloat16() for part in (query, key, value))
    exact = [part.double().transpose(1, 2) for part in (query, key, value)]
    bias = size.log() if sized else None
    mask = None if bias is None else bias[:, None, None]
    expected = F.scaled_dot_product_attention(*exact, attn_mask=None if mask is None else mask.double()).transpose(1, 2)
    rounded = F.scaled_dot_product_attention(
        *(part.transpose(1, 2) for part in (query, key, value)), attn_mask=None if mask is None else mask.bfloat16()
    ).transpose(1, 2)

    tiled = attend_in_tiles(
        *(part.unsqueeze(2) for part in (query, key, value)), None if bias is None else bias[:, None]
    )
    tiled = tiled.squeeze(2)
    context, sharp = attend_in_tiles_with_sharpness(query, key, value, size if sized else None)
    assert tiled.dtype == context.dtype == torch.bfloat16 and sharp.dtype == torch.float32
    error = (rounded.double() - expected).norm()
    # Exponentials (of width 64) round sums and totals besides the quotient.
    assert (tiled.double() - expected).norm() < (2.5 if width == 64 else 1.5) * error
    # Values times sizes are rounded, too.
    assert (context.double() - expected).norm() < (2.0 if sized else 1.5) * error
    torch.testing.assert_close(sharp, sharpness(query.float(), key.float()), rtol=0.01, atol=0.01)


def test_they_are_for_a_cpu_without_gradient() -> None:
    query = torch.zeros(1)
    assert not suits_tiles(query)
    with torch.no_grad():
        assert suits_tiles(query) and suits_tiles(query.bfloat16())
        assert not suits_tiles(query.double()) and not suits_tiles(query.to("meta"))
