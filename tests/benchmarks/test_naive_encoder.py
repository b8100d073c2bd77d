"""The naive encoder is ours in another form: what the benchmark compares is the same computation."""

import pytest
import torch

from benchmarks.naive_encoder import NaiveEncoder
from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.testa.video_encoder import VideoEncoder
from tests.models.tiny import HEADS, PATCH, WIDTH, clips, randomise

MODEL = TestaConfig(depth=3, width=WIDTH, heads=HEADS, patch_size=PATCH)
VIDEO = VideoConfig(num_frames=10, image_size=16)
AGGREGATIONS = {
    "none": AggregationConfig(),
    "geometry": AggregationConfig(reducer="geometry", frames_per_block=2, patches_per_block=3),
    "frames": AggregationConfig(reducer="geometry", frames_per_block=(3, 0, 2)),
    "patches": AggregationConfig(reducer="geometry", patches_per_block=(0, 5, 4)),
}


def pair(aggregation: AggregationConfig) -> tuple[VideoEncoder, NaiveEncoder]:
    """Ours and the naive one, with the same weights."""
    torch.manual_seed(0)
    ours = VideoEncoder(MODEL, VIDEO, aggregation)
    randomise(ours, std=0.1)
    naive = NaiveEncoder(MODEL, VIDEO, aggregation)
    naive.load_state_dict(ours.state_dict())
    return ours.eval(), naive.eval()


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_output_and_gradients_equal_ours(name: str) -> None:
    ours, naive = pair(AGGREGATIONS[name])
    pixels = clips(2, frames=10)
    tokens, expected = ours(pixels).tokens, naive(pixels)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    for encoded in (tokens, expected):
        (encoded * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for parameter_name, parameter in naive.named_parameters():
        gradient = gradients[parameter_name]
        assert parameter.grad is not None and gradient is not None
        scale = parameter.grad.abs().max()
        assert (gradient - parameter.grad).abs().max() <= 1e-5 * scale + 1e-5, parameter_name


@pytest.mark.parametrize("frames", [5, 20])
def test_equal_on_fewer_and_more_frames_than_configured(frames: int) -> None:
    ours, naive = pair(AGGREGATIONS["geometry"])
    pixels = clips(2, frames=frames)
    with torch.no_grad():
        torch.testing.assert_close(ours(pixels).tokens, naive(pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "aggregation"),
    [
        (TestaConfig(attention="joint"), AggregationConfig()),
        (TestaConfig(temporal_scaling=True), AggregationConfig()),
        (TestaConfig(), AggregationConfig(reducer="prune", frames_per_block=1)),
        (TestaConfig(), AggregationConfig(reducer="geometry", frames_per_block=1, frame_match="mean")),
        (TestaConfig(), AggregationConfig(reducer="geometry", frames_per_block=1, order="sorted")),
        (TestaConfig(), AggregationConfig(reducer="geometry", frames_per_block=1, proportional_attention=True)),
        (TestaConfig(), AggregationConfig(reducer="geometry", frames_per_block=1, weighted_pooling=True)),
    ],
)
def test_what_the_released_code_cannot_do_is_refused(model: TestaConfig, aggregation: AggregationConfig) -> None:
    with pytest.raises(ValueError, match="the released code's"):
        NaiveEncoder(model, VideoConfig(), aggregation)
