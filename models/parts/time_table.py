"""How a table of time positions is stretched to clips of another length than it was learned for.

Shapes: R rows of the table, T frames of a clip, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from configs.model import TimeTable

COARSE = 0.25
"""How much the position of a window weighs beside a frame's position in it, with `windows`."""


def stretch_times(table_1RD: Tensor, num_frames: int, time_table: TimeTable) -> Tensor:
    """The positions (1, T, D) of a clip's frames; the table itself where a clip has as many frames as it has rows.

    `nearest` is the references' way: neighbours share a row once a clip is longer. `linear` lies between two rows, so
    that no two frames share a position, but neighbours differ little. With `windows` frames differ from their
    neighbours as much as in training, and windows a little from each other; a shorter clip takes the first rows.
    """
    if table_1RD.shape[1] == num_frames:
        return table_1RD
    if time_table == "windows":
        return _in_windows(table_1RD, num_frames)
    if time_table == "linear":
        return _between_rows(table_1RD, num_frames)
    return F.interpolate(table_1RD.transpose(1, 2), size=num_frames, mode="nearest").transpose(1, 2)


def _between_rows(table_1RD: Tensor, num_frames: int) -> Tensor:
    """Interpolate linearly in float32; the first and the last frame take the first and the last row."""
    table = table_1RD.float().transpose(1, 2)
    stretched = F.interpolate(table, size=num_frames, mode="linear", align_corners=True)
    return stretched.transpose(1, 2).to(table_1RD.dtype)


def _in_windows(table_1RD: Tensor, num_frames: int) -> Tensor:
    """Every window of R frames takes the whole table, plus its own row of a coarse table over windows."""
    num_rows = table_1RD.shape[1]
    num_windows = -(-num_frames // num_rows)
    if num_windows == 1:
        return table_1RD[:, :num_frames]

    # The coarse table has no mean, so that windows lie around the positions of training.
    coarse = _between_rows(table_1RD, num_windows)
    coarse = COARSE * (coarse - coarse.mean(dim=1, keepdim=True))

    frame = torch.arange(num_frames, device=table_1RD.device)
    return table_1RD[:, frame % num_rows] + coarse[:, frame // num_rows]
