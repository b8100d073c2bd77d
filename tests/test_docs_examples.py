"""The examples of docs/ARCHITECTURE.md run, and do what they are there for."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

TEXT = (Path(__file__).parent.parent / "docs" / "ARCHITECTURE.md").read_text()
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def example() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(EXAMPLE, "docs/ARCHITECTURE.md", "exec"), names)
    return names


@torch.no_grad()
def test_the_vit_of_the_example_has_fewer_tokens_left() -> None:
    vit = example()["vit"]
    assert vit.forward_features(torch.randn(2, 3, 224, 224)).shape == (2, 1 + 196 - 90, 192)


@pytest.mark.parametrize("reducer", ["saliency", "tome", "importance", "prune"])
@torch.no_grad()
def test_other_reducers_fit_and_reducing_nothing_changes_nothing(reducer: str) -> None:
    pixels = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, depth=2).eval()
    for module in vit.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    expected = vit(pixels)
    blocks, reducing = vit.blocks, example()["ReducingBlocks"]

    vit.blocks = reducing(deepcopy(blocks), reducer, [0, 0])
    torch.testing.assert_close(vit(pixels), expected, atol=1e-5, rtol=1e-5)
    vit.blocks = reducing(blocks, reducer, [20, 10])
    assert vit.forward_features(pixels).shape == (2, 1 + 64 - 30, 192)
    assert not torch.allclose(vit(pixels), expected, atol=1e-2)
