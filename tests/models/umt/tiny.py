"""Small encoders of UMT, and videos for them."""

import torch
from torch import Tensor, nn

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.umt import UMTConfig
from models.umt.video_encoder import VideoEncoder

SCHEDULE = (12, 0, 0.25, 3)


def encoder(
    tokens_per_block: int | float | tuple[int | float, ...] = SCHEDULE,
    *,
    reducer: str = "saliency",
    pooling: str = "all",
    frames: int = 3,
    depth: int = 4,
    **arguments: object,
) -> VideoEncoder:
    """Four blocks of width 24 over 3 frames of 16 patches, with weights that make attention sharp."""
    torch.manual_seed(0)
    aggregation = AggregationConfig()
    if reducer != "none":
        aggregation = AggregationConfig(reducer=reducer, tokens_per_block=tokens_per_block)
    config = UMTConfig(depth=depth, width=24, heads=3, patch_size=4, pooling=pooling)
    model = VideoEncoder(config, VideoConfig(num_frames=frames, image_size=16), aggregation, **arguments).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=2 * module.in_features**-0.5)
    for name, parameter in model.named_parameters():
        if name.endswith(("q_bias", "v_bias")):
            nn.init.normal_(parameter, std=0.5)
    return model


def clips(batch: int = 2, frames: int = 3) -> Tensor:
    return torch.randn(batch, frames, 3, 16, 16, generator=torch.Generator().manual_seed(1))
