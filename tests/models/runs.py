"""Clips whose patches change at times of their own, and the reducer that looks at it."""

import torch
from torch import Tensor

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from tests.models import tiny

FRAMES, PATCHES = 6, tiny.NUM_PATCHES
VIDEO = VideoConfig(num_frames=FRAMES, image_size=tiny.IMAGE)
BY_THRESHOLD = AggregationConfig(reducer="run_length")
WEIGHED = AggregationConfig(reducer="run_length", weigh_lengths=True)
BY_SHARE = AggregationConfig(reducer="run_length", keep=0.5)
RANDOM = AggregationConfig(reducer="run_length", keep=0.5, kept_by="random")


def clips_of_runs(batch: int = 3, frames: int = FRAMES, seed: int = 0) -> Tensor:
    """Normalised clips (B, T, 3, H, W) whose patches change at times of their own, in each clip more often."""
    generator = torch.Generator().manual_seed(seed)
    side = tiny.IMAGE // tiny.PATCH
    share = torch.linspace(0.05, 0.7, batch)[:, None, None, None]
    changes = torch.rand(batch, frames, side, side, generator=generator) < share
    changes[:, 0] = True
    new = torch.randn(batch, frames, 3, tiny.IMAGE, tiny.IMAGE, generator=generator)
    mask = changes.repeat_interleave(tiny.PATCH, 2).repeat_interleave(tiny.PATCH, 3).unsqueeze(2)
    shown = [new[:, 0]]
    for frame in range(1, frames):
        shown.append(torch.where(mask[:, frame], new[:, frame], shown[-1]))
    return torch.stack(shown, dim=1)
