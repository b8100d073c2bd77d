"""The published multiply-accumulates, and those of the encoder as PyTorch's own counter finds them."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.umt import UMTConfig
from models.umt.cost import Cost, count
from models.umt.video_encoder import VideoEncoder

BASE: dict[str, int] = {}
LARGE = {"depth": 24, "width": 1024, "heads": 16}
# Of each published list: with matching, without it, tokens left; B/16 and L/16, 12 frames (none also 4).
LISTS: list[tuple[dict[str, int], int, tuple[int, ...], tuple[float, float, int]]] = [
    (BASE, 12, (), (303.3, 303.3, 2352)),
    (BASE, 4, (), (78.5, 78.5, 784)),
    (BASE, 12, (600, 200, 100), (178.0, 175.9, 1452)),
    (BASE, 12, (450, 250, 200), (181.3, 179.0, 1452)),
    (BASE, 12, (500,), (227.6, 226.5, 1852)),
    (BASE, 12, (250, 150, 150, 150), (212.8, 209.5, 1652)),
    (BASE, 12, (400, 150, 150), (206.2, 203.8, 1652)),
    (BASE, 12, (200, 200, 200, 100), (212.9, 209.6, 1652)),
    (BASE, 12, (400, 300), (203.7, 201.9, 1652)),
    (BASE, 12, (600, 200), (188.5, 186.9, 1552)),
    (LARGE, 12, (), (984.6, 984.6, 2352)),
    (LARGE, 4, (), (267.8, 267.8, 784)),
    (LARGE, 12, (550, 400), (543.4, 541.2, 1402)),
    (LARGE, 12, (600, 200, 100, 100), (528.6, 525.2, 1352)),
    (LARGE, 12, (600, 300), (563.1, 560.9, 1452)),
    (LARGE, 12, (800, 100), (559.0, 557.0, 1452)),
    (LARGE, 12, (250, 250, 200, 200), (583.7, 579.6, 1452)),
    (LARGE, 12, (450, 250, 100), (610.9, 607.9, 1552)),
    (LARGE, 12, (350, 300, 100, 50), (615.7, 611.9, 1552)),
    (LARGE, 12, (400, 400, 100), (569.8, 566.8, 1452)),
]


def saliency(amounts: tuple[int | float, ...]) -> AggregationConfig:
    return AggregationConfig(reducer="saliency", tokens_per_block=amounts) if amounts else AggregationConfig()


@pytest.mark.parametrize(("sizes", "frames", "amounts", "expected"), LISTS)
def test_published_numbers(
    sizes: dict[str, int], frames: int, amounts: tuple[int, ...], expected: tuple[float, float, int]
) -> None:
    cost = count(UMTConfig(pooling="all", **sizes), VideoConfig(num_frames=frames), saliency(amounts))
    assert cost.tokens == expected[2]
    # The published numbers are rounded to 0.1 themselves.
    assert (cost.gmacs, cost.gmacs_without_matching) == pytest.approx(expected[:2], abs=0.0501)


def counted(model: UMTConfig, video: VideoConfig, aggregation: AggregationConfig) -> float:
    """Giga multiply-accumulates of the encoder as PyTorch counts its operations."""

    def of_norm(shape: Any, *_: Any, **__: Any) -> int:
        return 2 * 5 * torch.Size(shape).numel()

    with torch.device("meta"):
        encoder = VideoEncoder(model, video, aggregation).eval()
        pixels = torch.empty(1, video.num_frames, 3, video.image_size, video.image_size)
    norms = {torch.ops.aten.native_layer_norm: of_norm}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=norms) as counter:
        encoder.pool(encoder(pixels).tokens, video.num_frames)
    return counter.get_total_flops() / 2 / 1e9


@pytest.mark.parametrize(("reducer", "compares"), [("tome", True), ("importance", True), ("prune", False)])
def test_the_formula_counts_other_reducers(reducer: str, compares: bool) -> None:
    model = UMTConfig(depth=2, width=192, heads=3, patch_size=16, pooling="all")
    video = VideoConfig(num_frames=2, image_size=224)
    aggregation = AggregationConfig(reducer=reducer, tokens_per_block=(101, 40))
    cost = count(model, video, aggregation)
    assert cost.gmacs == pytest.approx(counted(model, video, aggregation), abs=6e-4)
    assert (cost.gmacs > cost.gmacs_without_matching) == compares and cost.tokens == 392 - 141


@pytest.mark.parametrize(("inside", "amounts"), [("tome", (101, 40)), ("saliency", (0, 0.25))])
def test_the_formula_counts_what_merges_after_run_length_tokens(inside: Any, amounts: tuple[int | float, ...]) -> None:
    model = UMTConfig(depth=2, width=192, heads=3, patch_size=16, pooling="all")
    video = VideoConfig(num_frames=4, image_size=224)
    aggregation = AggregationConfig(reducer="run_length", keep=0.5, inside=inside, tokens_per_block=amounts)
    cost = count(model, video, aggregation)
    assert cost.gmacs == pytest.approx(counted(model, video, aggregation), abs=6e-4)
    assert cost.gmacs_without_matching < cost.gmacs and cost.tokens == 392 - (141 if inside == "tome" else 98)


@pytest.mark.parametrize("pooling", ["frames", "all"])
@pytest.mark.parametrize("amounts", [(), (301,), (0, 0.25)])
def test_the_formula_counts_what_is_executed(amounts: tuple[int | float, ...], pooling: str) -> None:
    model = UMTConfig(depth=3, width=192, heads=3, patch_size=16, pooling=pooling)
    video = VideoConfig(num_frames=5, image_size=224)
    if amounts and pooling == "frames":
        with pytest.raises(ValueError, match="model.pooling"):
            count(model, video, saliency(amounts))
        return
    cost: Cost = count(model, video, saliency(amounts))
    assert cost.gmacs == pytest.approx(counted(model, video, saliency(amounts)), abs=6e-4)
    assert (cost.gmacs > cost.gmacs_without_matching) == bool(amounts)
