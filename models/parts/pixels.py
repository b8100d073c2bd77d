"""From the bytes of a frame to what an encoder reads."""

import torch
from torch import Tensor


def normalise_pixels(
    video_BTCHW: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float], dtype: torch.dtype
) -> Tensor:
    """uint8 pixels to zero mean and unit deviation, given those of a scale from 0 to 1, on the tensor's own device."""
    # Made on the device: to send them would have the host wait for it in every step.
    subtracted, divided = (
        255 * torch.stack([torch.full((1, 1), value, device=video_BTCHW.device) for value in values])
        for values in (mean, std)
    )
    return ((video_BTCHW - subtracted) / divided).to(dtype)
