"""The limit's matrix products are those of the paper's count and those we execute, and its sum is theirs."""

from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from benchmarks import limit
from benchmarks.encoder import executed_products, reference_products
from benchmarks.limit import MachineLimit, Products, Shape, record, ways_to_multiply
from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.testa.cost import count

CPU = torch.device("cpu")
NONE = AggregationConfig()
PAPER = AggregationConfig(reducer="geometry", frames_per_block=1, patches_per_block=12)


def norm_macs(model: TestaConfig, video: VideoConfig, aggregation: AggregationConfig) -> int:
    """Five an element, which the paper's count has and matrix products do not."""
    frames, patches = video.num_frames, (video.image_size // model.patch_size) ** 2
    elements = 0
    for _ in range(model.depth):
        elements += frames * patches
        frames -= aggregation.frames_per_block
        elements += frames * (1 + patches)
        patches -= aggregation.patches_per_block
        elements += 1 + frames * patches
    return 5 * model.width * (elements + 1 + frames * patches)


@pytest.mark.parametrize(("aggregation", "gmacs"), [(NONE, 786.817), (PAPER, 419.841)])
def test_the_reference_s_products_are_the_paper_s_count(aggregation: AggregationConfig, gmacs: float) -> None:
    model, video = TestaConfig(), VideoConfig()
    macs = reference_products(model, video, aggregation).macs + norm_macs(model, video, aggregation)
    assert macs / 1e9 == pytest.approx(gmacs, abs=6e-4)
    assert macs / 1e9 == pytest.approx(count(model, video, aggregation).gmacs, abs=6e-4)


def test_every_shape_of_the_reference() -> None:
    products = reference_products(TestaConfig(), VideoConfig(), NONE)
    assert products.linear == {
        (6272, 768, 768): 1 + 2 * 12,  # patches, then over time: projection and temporal_fc
        (6272, 768, 2304): 12,
        (6304, 768, 2304): 12,
        (6304, 768, 768): 12,
        (6273, 768, 3072): 12,
        (6273, 3072, 768): 12,
    }
    over_time, within_frames = 2 * 196 * 32**2 * 768, 2 * 32 * 197**2 * 768
    assert products.other_macs == 12 * (over_time + within_frames)


@pytest.mark.parametrize("aggregation", [NONE, PAPER])
@pytest.mark.parametrize("batch", [1, 3])
def test_executed_is_the_reference_without_temporal_fc(aggregation: AggregationConfig, batch: int) -> None:
    model, video = TestaConfig(), VideoConfig()
    executed = executed_products(model, video, aggregation, batch)
    reference = reference_products(model, video, aggregation, batch)
    folded, frames, patches = 0, 32, 196
    for _ in range(model.depth):
        folded += batch * frames * patches * model.width**2
        frames, patches = frames - aggregation.frames_per_block, patches - aggregation.patches_per_block
    assert reference.linear_macs - executed.linear_macs == folded
    # Similarities of the class token are not computed by us; attention itself is the same.
    assert executed.other_macs == pytest.approx(reference.other_macs, rel=2e-4)
    assert (executed.other_macs == reference.other_macs) == (aggregation.reducer == "none")


def test_more_frames_than_configured_are_counted_as_given() -> None:
    model, video = TestaConfig(depth=2), VideoConfig(num_frames=8)
    products = executed_products(model, video, NONE, frames=16)
    assert products == executed_products(model, VideoConfig(num_frames=16), NONE)


def test_recording_a_convolution_and_products_of_both_kinds() -> None:
    with torch.device("meta"):
        module = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 4, stride=4), torch.nn.Flatten(2), torch.nn.Linear(6, 7))
        products = record(module, torch.empty(2, 3, 8, 12))
    assert products == Products(Counter({(2 * 6, 3 * 16, 5): 1, (2 * 5, 6, 7): 1}), 0)
    assert products.macs == 12 * 48 * 5 + 10 * 6 * 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_ways_multiply_the_same(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ways = ways_to_multiply((60, 48, 32), CPU, dtype)
    assert {"mm", "linear", "addmm"} <= set(ways)
    products = {name: way() for name, way in ways.items()}
    expected = products["linear"].float()
    assert expected.std() == pytest.approx(1, abs=0.1)
    for product in products.values():
        assert product.dtype == dtype
        torch.testing.assert_close(product.float(), expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.05)


def test_the_sum_takes_each_shape_as_often_and_at_its_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """With attention added at the mean rate: here as much again as half of the linear layers' work."""
    seconds: dict[Shape, list[float]] = {(2, 3, 4): [5.0, 1.0, 2.0], (6, 5, 4): [7.0, 8.0, 9.0]}
    asked: list[tuple[Shape, int]] = []

    def named(shape: Shape, device: torch.device, dtype: torch.dtype) -> dict[str, Shape]:
        return {f"{shape} {second}": (shape, second) for second in seconds[shape]}

    def least(way: tuple[Shape, int], device: torch.device) -> float:
        asked.append(way)
        return way[1]

    monkeypatch.setattr(limit, "ways_to_multiply", named)
    monkeypatch.setattr(limit, "_least_seconds", least)
    linear = Counter({(2, 3, 4): 10, (6, 5, 4): 1})
    work = MachineLimit(Products(linear, (240 + 120) // 2), CPU, torch.float32)
    assert work() == pytest.approx(1.5 * (10 * 1.0 + 7.0))
    asked.clear()
    assert work() == pytest.approx(1.5 * (10 * 1.0 + 7.0))
    assert sorted(asked) == [((2, 3, 4), 1.0), ((2, 3, 4), 2.0), ((6, 5, 4), 7.0), ((6, 5, 4), 8.0)]


def test_a_product_is_really_multiplied() -> None:
    calls = []

    def multiply() -> torch.Tensor:
        calls.append(torch.is_grad_enabled())
        return F.linear(torch.ones(2, 2), torch.ones(2, 2))

    assert limit._least_seconds(multiply, CPU) > 0
    assert calls == [False] * (1 + limit.REPEATS)
