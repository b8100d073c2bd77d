"""Divided attention without gradient, by its faster ways, against the way that training takes."""

import pytest
import torch
from torch.testing import assert_close

from tests.models.tvts.tiny import make_tower


@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("axis", ["time", "space"])
@pytest.mark.parametrize(("frames", "patches"), [(3, 160), (20, 9), (140, 5)])
def test_attention_without_gradient_computes_the_same(axis: str, frames: int, patches: int, sized: bool) -> None:
    """Lengths for each of the faster ways and for torch's kernel."""
    block, tokens = make_tower().blocks[0], torch.randn(2, 1 + frames * patches, 24)
    attention = block.timeattn if axis == "time" else block.attn
    size = 1 + torch.rand(2, frames, patches) if sized else None
    expected, _ = attention(tokens, frames, size)
    with torch.no_grad():
        found, attended = attention(tokens, frames, size, "key")
        _, explicit = attention(tokens, frames, size, "probabilities")
    assert_close(found, expected, atol=1e-5, rtol=0)
    assert_close(attended.key, explicit.key, atol=0, rtol=0)
