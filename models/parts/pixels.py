"""Convert the bytes of frames to the input of an encoder."""

import torch
from torch import Tensor


def normalise_pixels(
    video_BTCHW: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float], dtype: torch.dtype
) -> Tensor:
    """Normalise uint8 pixels with a mean and deviation on a scale from 0 to 1, on the tensor's own device."""
    # Create the constants on the device: a transfer would make the host wait in every step.
    device = video_BTCHW.device
    mean_C11 = 255 * torch.stack([torch.full((1, 1), value, device=device) for value in mean])
    std_C11 = 255 * torch.stack([torch.full((1, 1), value, device=device) for value in std])
    return ((video_BTCHW - mean_C11) / std_C11).to(dtype)
