"""Multiply-accumulates of TVTSv2's video tower, and the tokens it leaves, without running it."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.tvts import TvtsConfig
from models.parts.cost import Cost, check_countable
from models.tvts.build import schedules_of, sizes_of
from models.tvts.video_tower import VideoTower

MACS_PER_NORM_ELEMENT = 5


def count(model: TvtsConfig, video: VideoConfig, aggregation: AggregationConfig) -> Cost:
    """The cost of encoding one video of the configured size.

    By the conventions of TESTA's paper: one multiply-accumulate counted as one, a LayerNorm as five per element;
    softmax, activations, sorting, gathers and sums are not counted. No other count was published for this tower, so
    what is executed is the same. It is that of all tokens; an embedding alone costs less (`embedding_only`).
    """
    check_countable(aggregation)
    sizes = sizes_of(model, video)
    with torch.device("meta"):
        schedules = schedules_of(model, video, aggregation)
        tower = VideoTower(sizes.image, sizes.num_frames, sizes.raw_patches, schedules, motion=sizes.motion)
        pixels = torch.empty(1, video.num_frames, 3, video.image_size, video.image_size)

    # The counter counts two a multiply-accumulate.
    norms = {torch.ops.aten.native_layer_norm: lambda *shapes, **_: 2 * MACS_PER_NORM_ELEMENT * _elements(shapes[0])}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=norms) as counter:
        encoded = tower.eval()(pixels)

    gmacs = round(counter.get_total_flops() / 2 / 1e9, 3)
    # Patches that are left of a video are no rectangle if some left before the first block.
    frames, patches = encoded.size.shape[1:] if encoded.size.ndim == 3 else (None, None)
    return Cost(gmacs, gmacs, frames, patches, encoded.tokens.shape[1])


def _elements(shape: Any) -> int:
    return torch.Size(shape).numel()
