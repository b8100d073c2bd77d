"""Tube masks: which patches of a clip stay, the same places in every frame."""

from typing import Any

from torch import Tensor

from engine.distributed import rank, world_size
from models.parts.losses_sorting import row_noise
from models.trained_protocols import DrawsKept
from tasks.transfer import sent


def kept_patches(model: DrawsKept, batch: dict[str, Any], seed: int, step: int) -> Tensor | None:
    """Places (B, kept) of the patches that each clip of a micro-batch keeps; None if it keeps all.

    `batch` holds `clip`, with pixels (B, T, 3, H, W), and `part`, the number of the micro-batch within its step. What
    is drawn follows from (seed, step, part) alone.
    """
    video_BTCHW = batch["clip"].pixels
    batch_size, (height, width) = len(video_BTCHW), video_BTCHW.shape[-2:]
    num_patches = (height // model.patch_size) * (width // model.patch_size)

    # Noise for the rows of all processes: each takes its own, so their number changes nothing.
    noise_GP = row_noise(seed, step, batch["part"], batch_size * world_size(), num_patches)
    kept = model.draw_kept(num_patches, noise_GP[rank() * batch_size :][:batch_size])
    return None if kept is None else sent(kept, video_BTCHW.device)
