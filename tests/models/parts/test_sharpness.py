"""Sharpness and saliency against the plain formulas, and the published numbers of one merge after another."""

import math

import pytest
import torch
from torch import Tensor

from models.parts import aggregation, sharpness as module
from models.parts.aggregation import MergePlan, best_match, follow, merge, plan_bipartite
from models.parts.sharpness import attend_with_sharpness, negative_entropy, saliency, sharpness
from scripts.plan_memory.live import LiveMemory
from tests.models.tiny import PAIRS, clips, encoder as tiny_encoder


def tensors(batch: int = 2, tokens: int = 37, heads: int = 3, width: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values (B, N, H, K) and sizes (B, N)."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(batch, tokens, heads, width, generator=generator) for _ in range(3))
    return query, key, value, 0.5 + torch.rand(batch, tokens, generator=generator)


def plain(query: Tensor, key: Tensor, value: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
    """The formulas as they are written in the paper, with the whole map."""
    scores = torch.einsum("bnhk,bmhk->bhnm", query, key) / math.sqrt(query.shape[-1])
    attention = scores.softmax(dim=-1).mean(dim=1)
    biased = scores if size is None else scores + size.log()[:, None, None, :]
    context = torch.einsum("bhnm,bmhk->bnhk", biased.softmax(dim=-1), value)
    return context, (attention * attention.log()).sum(dim=-1)


def plan_of(tokens: Tensor, r: int, weight: Tensor | None) -> MergePlan:
    """A merge of features with weights (B, N) of sources."""
    positions = torch.arange(tokens.shape[1])
    score, match = best_match(tokens[:, ::2], tokens[:, 1::2])
    plan = plan_bipartite(score, match, r, positions[::2], positions[1::2], "reference")
    return plan if weight is None else plan._replace(weight=weight.gather(1, plan.source))


@pytest.mark.parametrize("tile_bytes", [1, 3000, 2**24])
@pytest.mark.parametrize("sized", [True, False])
def test_one_pass_equals_the_whole_map(tile_bytes: int, sized: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE_BYTES", {"cpu": tile_bytes, "other": tile_bytes})
    query, key, value, size = tensors()
    found = attend_with_sharpness(query, key, value, size if sized else None)
    expected = plain(query, key, value, size if sized else None)
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sharpness(query, key), expected[1], atol=1e-5, rtol=1e-5)


def test_bf16_is_near_float32() -> None:
    query, key, value, size = tensors(tokens=200)
    in_bf16 = [tensor.bfloat16() for tensor in (query, key, value)]
    context, sharp = attend_with_sharpness(*in_bf16, size)
    expected = plain(*(tensor.float() for tensor in in_bf16), size)
    assert context.dtype == torch.bfloat16 and sharp.dtype == torch.float32
    torch.testing.assert_close(context.float(), expected[0], atol=0.02, rtol=0.02)
    torch.testing.assert_close(sharp, expected[1], atol=0.01, rtol=0.01)


def test_the_whole_map_never_exists() -> None:
    """48 frames of 224 pixels: the pass, and the matching, add less than a tenth of the map's bytes."""
    tokens, heads = 48 * 196, 12
    with torch.device("meta"):
        query, key, value = (torch.empty(1, tokens, heads, 64) for _ in range(3))
        size, features = torch.empty(1, tokens), torch.empty(1, tokens, heads * 64)
    with LiveMemory() as memory:
        attend_with_sharpness(query, key, value, size)
        best_match(features[:, ::2], features[:, 1::2])
    assert 0 < memory.at_peak.total() < heads * tokens**2 * 4 / 10


def test_saliency_by_hand() -> None:
    # Mean -2, sharpest -1.
    found = saliency(torch.tensor([[-3.0, -2.5, -2.0, -1.5, -1.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 0.0, 0.5, 1.0]]))


@pytest.mark.parametrize("kind", ["one key", "all keys alike"])
def test_degenerate_attention_merges_with_full_weight(kind: str) -> None:
    tokens = 2351
    attention = torch.eye(tokens)[None, None] if kind == "one key" else torch.full((1, 1, tokens, tokens), 1 / tokens)
    assert torch.equal(saliency(negative_entropy(attention)), torch.ones(1, tokens))


def test_samples_do_not_touch_each_other() -> None:
    sharp = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    sharp[1] = 0.0
    together = saliency(sharp)
    assert torch.equal(together, torch.cat([saliency(row[None]) for row in sharp]))
    assert bool((together[1] == 1).all()) and bool((together[0] == 0).any())


def test_two_merges_in_a_row_have_the_published_numbers() -> None:
    time, channel = torch.arange(8.0)[:, None], torch.arange(4.0)[None]
    tokens = (0.9 * time + 0.7 * channel + 0.3 * time * channel).sin()[None]
    size = torch.ones(1, 8)

    def attention(count: int, formula: str) -> Tensor:
        i, j, h = (
            torch.arange(float(count))[:, None],
            torch.arange(float(count))[None],
            torch.arange(2.0)[:, None, None],
        )
        if formula == "first":
            scores = (0.5 * i * j + 0.8 * h + 0.2 * i).cos() * (1 + 0.25 * i)
        else:
            scores = (0.4 * i * j + 0.6 * h + 0.1 * j).cos() * (1 + 0.2 * i)
        return scores.softmax(dim=-1)[None]

    weight = saliency(negative_entropy(attention(8, "first")))
    expected = torch.tensor([[0, 0, 0, 0.106510, 0.114777, 0.627781, 0, 1]])
    torch.testing.assert_close(weight, expected, atol=2e-6, rtol=0)
    tokens, size = merge(tokens, size, plan_of(tokens, 3, weight))
    torch.testing.assert_close(size, torch.tensor([[1, 1, 1, 1.114777, 1]]), atol=2e-6, rtol=0)
    expected = torch.tensor(
        [
            [0, 0.644218, 0.985450, 0.863209],
            [0.783327, 0.946300, 0.239249, -0.687766],
            [0.427380, -0.916166, -0.373877, 0.938000],
            [-0.922446, 0.290525, 0.541966, -0.879340],
            [0.016814, 0.319098, -0.618137, 0.845747],
        ]
    )
    torch.testing.assert_close(tokens[0], expected, atol=2e-6, rtol=0)

    weight = saliency(negative_entropy(attention(5, "second")))
    torch.testing.assert_close(weight, torch.tensor([[0, 0, 1, 0.782005, 0.415238]]), atol=2e-6, rtol=0)
    tokens, size = merge(tokens, size, plan_of(tokens, 2, weight))
    expected = torch.tensor(
        [
            [0.427380, -0.916166, -0.373877, 0.938000],
            [0.558428, 0.762276, -0.012312, -0.237825],
            [-0.922446, 0.290525, 0.541966, -0.879340],
        ]
    )
    torch.testing.assert_close(tokens[0], expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(size, torch.tensor([[1, 1.415238, 1.114777]]), atol=2e-6, rtol=0)


def test_weight_1_merges_as_without_and_weight_0_drops() -> None:
    tokens, size = torch.randn(2, 21, 6, generator=torch.Generator().manual_seed(2)), tensors(tokens=21)[3]
    unweighted = plan_of(tokens, 7, None)

    merged = merge(tokens, size, plan_of(tokens, 7, torch.ones(2, 21)))
    assert all(torch.equal(own, other) for own, other in zip(merged, merge(tokens, size, unweighted), strict=True))

    kept, kept_size = merge(tokens, size, plan_of(tokens, 7, torch.zeros(2, 21)))
    assert torch.equal(kept, tokens.gather(1, unweighted.keep[..., None].expand(-1, -1, 6)))
    assert torch.equal(kept_size, size.gather(1, unweighted.keep))


def test_a_weighted_merge_is_the_mean_by_weight_times_size() -> None:
    tokens, size = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(5)), tensors(1, 9)[3]
    weight = torch.rand(1, 9, generator=torch.Generator().manual_seed(6))
    plan = plan_of(tokens, 4, weight)
    assert plan.destination is not None
    merged, merged_size = merge(tokens, size, plan)
    for place, kept in enumerate(plan.keep[0].tolist()):
        mass, total = size[0, kept].clone(), size[0, kept] * tokens[0, kept]
        for source, destination in zip(plan.source[0].tolist(), plan.destination[0].tolist(), strict=True):
            if destination == place:
                mass += weight[0, source] * size[0, source]
                total = total + weight[0, source] * size[0, source] * tokens[0, source]
        torch.testing.assert_close(merged_size[0, place], mass)
        torch.testing.assert_close(merged[0, place], total / mass)


def test_origins_of_what_is_dropped() -> None:
    tokens = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(7))
    weight = torch.tensor([[0.0, 1, 0.5, 1, 0, 1, 0.1, 1]])
    plan = plan_of(tokens, 4, weight)  # all even positions leave
    origins = follow(torch.arange(8).view(1, 1, 8), plan, 8, 1).flatten()
    assert origins[1::2].tolist() == [0, 1, 2, 3]
    assert (origins[::2] == -1).tolist() == [True, False, True, False]


@pytest.mark.parametrize("attention", ["divided", "joint"])
@torch.no_grad()
def test_sharpness_leaves_out_the_class_token(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With divided attention it is of each frame's patches to each other, and weighs against the whole clip."""
    model, video = tiny_encoder(*PAIRS[f"{attention}-saliency"], depth=1), clips(2)
    seen: dict[str, Tensor] = {}
    own = aggregation.saliency
    monkeypatch.setattr(aggregation, "saliency", lambda sharp: seen.setdefault("weight", own(sharp)))
    block = model.blocks[0]
    block.norm1.register_forward_hook(lambda _, __, normed: seen.setdefault("normed", normed))
    model(video)

    normed = seen["normed"].flatten(0, -3)  # (B T, 1 + L, D), or (B, 1 + N, D)
    query, key, _ = (part.unflatten(-1, (block.attn.heads, -1)) for part in block.attn.qkv(normed).chunk(3, dim=-1))
    scores = torch.einsum("bnhk,bmhk->bhnm", query[:, 1:], key[:, 1:]) / math.sqrt(query.shape[-1])
    mean_map = scores.softmax(dim=-1).mean(dim=1)
    sharp = (mean_map * mean_map.log()).sum(dim=-1).view(2, -1)
    mean, most = sharp.mean(dim=-1, keepdim=True), sharp.amax(dim=-1, keepdim=True)
    torch.testing.assert_close(seen["weight"], ((sharp - mean) / (most - mean)).clamp(0, 1), atol=1e-4, rtol=1e-4)
