"""What pre-training draws: masked words, where writing begins. All of it follows from numbers that are given.

Shapes: B texts of this process, S text tokens.
"""

import torch
from torch import Tensor

MASKED_SHARE = 0.15


def uniform_noise(seed: int, step: int, part: int, rows: int, columns: int) -> Tensor:
    """Numbers (rows, columns) in [0, 1) for the texts of all processes: a function of seed, step and its part alone.

    Made on the CPU, so that each process cuts out its own and neither their number nor the device changes them.
    """
    generator = torch.Generator().manual_seed(((seed * 1_000_003 + step) * 1_009 + part) % 2**63)
    return torch.rand((rows, columns), generator=generator)


def draw_masked(mask_BS: Tensor, noise_BS: Tensor, share: float = MASKED_SHARE) -> Tensor:
    """Which tokens are masked, bool (B, S): each word with probability `share`, but at least one in every text.

    Start and end are no words; of a text without words the end is masked, as in the reference.
    """
    slots = torch.arange(mask_BS.shape[1], device=mask_BS.device)
    end = mask_BS.sum(dim=1, keepdim=True) - 1
    is_word = (slots > 0) & (slots < end)
    masked = is_word & (noise_BS < share)

    # Where the draw spares all words, the one nearest to being drawn.
    nearest = noise_BS.masked_fill(~is_word, 1.0).argmin(dim=1, keepdim=True)
    nearest = torch.where(is_word.any(dim=1, keepdim=True), nearest, 1)
    return torch.where(masked.any(dim=1, keepdim=True), masked, slots == nearest)


def draw_starts(mask_BS: Tensor, noise_B: Tensor) -> Tensor:
    """The first token that is written of each text (B,), uniform from 1 to the end token."""
    last = mask_BS.sum(dim=1) - 1
    return 1 + (noise_B * last).long().clamp(max=last - 1)
