"""Means weighted by saliency: against a loop over tokens, and against attention written out."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from configs.aggregation import AggregationConfig
from models.parts.aggregation import BACKGROUND, MergePlan, merge, plan_by_importance
from tests.models.parts.test_origins import record_plans
from tests.models.tiny import HEADS, PAIRS, clips, encoder


@pytest.mark.parametrize("inner", [(), (3,)], ids=str)
@pytest.mark.parametrize("leading", [(), (2, 3)], ids=str)
def test_means_equal_a_loop_and_sizes_add_up(leading: tuple[int, ...], inner: tuple[int, ...]) -> None:
    tokens = torch.randn(*leading, 9, *inner, 5, dtype=torch.float64, requires_grad=True)
    size = torch.randint(1, 6, (*leading, 9, *inner)).double()
    salience = BACKGROUND + torch.rand(*leading, 9, *inner, dtype=torch.float64)
    plan = plan_by_importance(torch.rand(*leading, 9), 5, torch.randn(*leading, 9, 3))
    merged, merged_size = merge(tokens, size, plan._replace(salience=salience))
    direction = torch.randn_like(merged)
    (gradient,) = torch.autograd.grad(merged, tokens, direction)

    parts = (tokens, size, salience, merged, merged_size, direction, gradient, plan.keep, plan.source, plan.destination)
    rows = [part.reshape(-1, *part.shape[len(leading) :]) for part in parts]
    for own, sizes, weights, found, found_size, towards, slope, keep, source, destination in zip(*rows, strict=True):
        expected_slope = torch.zeros_like(own)
        for slot, kept in enumerate(keep.tolist()):
            group = [kept, *(source[destination == slot].tolist())]
            mass = torch.stack([sizes[place] * weights[place] for place in group])
            share = (mass / mass.sum(dim=0)).unsqueeze(-1)
            torch.testing.assert_close(found[slot], (own[group] * share).sum(dim=0))
            assert torch.equal(found_size[slot], sizes[group].sum(dim=0))
            expected_slope[group] = share * towards[slot]
        torch.testing.assert_close(slope, expected_slope)


def saliency_by_hand(queries: Tensor, keys: Tensor) -> Tensor:
    """Saliency (B, ...) of queries and keys (B, ..., N, H, K), relative to all of a clip."""
    scores = torch.einsum("...nhk,...mhk->...hnm", queries, keys) / math.sqrt(queries.shape[-1])
    mean_map = scores.softmax(dim=-1).mean(dim=-3)
    sharp = (mean_map * mean_map.log()).sum(dim=-1)
    mean, most = sharp.flatten(1).mean(dim=1), sharp.flatten(1).amax(dim=1)
    shape = (-1, *[1] * (sharp.ndim - 1))
    return ((sharp - mean.view(shape)) / (most - mean).view(shape)).clamp(0, 1)


@torch.no_grad()
def test_saliency_is_of_each_axis_own_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    model, video = encoder(*PAIRS["divided-geometry-weighted"], depth=1), clips(2)
    block, seen = model.blocks[0], {}
    for name in ("temporal_norm1", "norm1"):
        getattr(block, name).register_forward_hook(lambda _, __, normed, name=name: seen.setdefault(name, normed))
    recorded = record_plans(model, monkeypatch)
    model(video)
    plans: dict[str, MergePlan] = dict(recorded)

    # Over time, each patch sees the same patch of other frames; all patches of a frame have a saliency of their own.
    query, key, _ = (
        part.unflatten(-1, (HEADS, -1)) for part in block.temporal_attn.qkv(seen["temporal_norm1"]).chunk(3, -1)
    )
    expected = saliency_by_hand(query.transpose(1, 2), key.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(plans["time"].salience, expected.clamp(min=BACKGROUND), atol=1e-4, rtol=1e-4)

    # Within frames, the class token is left out.
    query, key, _ = (part.unflatten(-1, (HEADS, -1)) for part in block.attn.qkv(seen["norm1"]).chunk(3, -1))
    expected = saliency_by_hand(query[:, :, 1:], key[:, :, 1:])
    torch.testing.assert_close(plans["space"].salience, expected.clamp(min=BACKGROUND), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("pair", ["divided-geometry", "joint-tome"])
def test_who_merges_and_sizes_are_those_of_plain_merging(pair: str) -> None:
    attention, settings = PAIRS[pair]
    weighted = replace(settings, merge_weight="saliency")
    plain, other = (encoder(attention, one, depth=1)(clips(2), return_origins=True) for one in (settings, weighted))
    if attention == "joint":
        assert torch.equal(plain.origins, other.origins)
        assert torch.equal(plain.size, other.size)
    assert not torch.allclose(plain.tokens, other.tokens, atol=1e-3)
    assert torch.equal(other.size.sum(dim=1), plain.size.sum(dim=1))


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="merge_weight: saliency has no effect with reducer 'saliency'"):
        AggregationConfig(reducer="saliency", patches_per_block=1, merge_weight="saliency")
