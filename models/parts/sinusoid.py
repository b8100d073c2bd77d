"""Fixed sinusoids as position embeddings, and their interpolation along time."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

LONGEST_WAVE = 10000


def sinusoid(num_positions: int, width: int) -> Tensor:
    """Embeddings (num_positions, width), float32: sines at even places and cosines at odd ones, computed in float64."""
    position = torch.arange(num_positions, dtype=torch.float64)
    place = torch.arange(width)
    angle = position[:, None] / LONGEST_WAVE ** (2 * (place // 2).double() / width)
    return torch.where(place % 2 == 0, angle.sin(), angle.cos()).float()


def interpolated_in_time(table_TLD: Tensor, num_frames: int) -> Tensor:
    """Resize a table of T frames to `num_frames`, linearly along time, with each frame as an interval of time."""
    if len(table_TLD) == num_frames:
        return table_TLD
    frames = F.interpolate(rearrange(table_TLD, "T L D -> L D T"), size=num_frames, mode="linear")
    return rearrange(frames, "L D T -> T L D")
