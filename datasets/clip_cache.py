"""Clips of a small data set in memory that all workers share."""

import torch
from torch import Tensor

from configs.sizes import format_bytes
from datasets.framing import Framing


class ClipCache:
    """Clips in memory that forked and spawned workers share.

    Two workers may fill a place at once, with the same bytes, and a place counts only after it is filled: so no lock.

    Args:
        num_clips, num_frames, size: how many clips, of how many frames of `size` pixels.
        most_bytes: ValueError if the clips need more.
    """

    def __init__(self, num_clips: int, num_frames: int, size: int, most_bytes: int) -> None:
        needed = num_clips * num_frames * 3 * size * size
        if needed > most_bytes:
            raise ValueError(
                f"data.cache_gb: {num_clips} clips of {num_frames} frames of {size} pixels need "
                f"{format_bytes(needed)}, more than {format_bytes(most_bytes)}; raise it to "
                f"{needed / 2**30:.3g} or set data.cache=none"
            )

        try:
            self.clips = torch.zeros((num_clips, num_frames, 3, size, size), dtype=torch.uint8).share_memory_()
            self.times = torch.zeros((num_clips, num_frames), dtype=torch.float64).share_memory_()
            self.filled = torch.zeros(num_clips, dtype=torch.bool).share_memory_()
        except RuntimeError as error:
            raise ValueError(
                f"data.cache: no shared memory for the clips ({error}); make /dev/shm larger or set data.cache=none"
            ) from None

    def get(self, position: int) -> tuple[Tensor, Tensor] | None:
        """The pixels and times of the clip at a position; None if it is not there yet."""
        return (self.clips[position], self.times[position]) if self.filled[position] else None

    def put(self, position: int, pixels: Tensor, times: Tensor) -> None:
        """Keep a clip at its position."""
        self.clips[position] = pixels
        self.times[position] = times
        self.filled[position] = True


def check_cacheable(sampling: str, part_is_random: bool, framing: Framing) -> None:
    """ValueError, with the remedy, if each epoch shows other frames or other pixels of a video."""
    if part_is_random:
        raise ValueError(
            f"data.cache: memory has no effect with {sampling} sampling, which takes other frames each epoch; "
            "set data.cache=none"
        )
    if framing.is_random:
        raise ValueError(
            f"data.cache: memory has no effect with video.augment {framing.augment}, which takes other pixels "
            "each epoch; set data.cache=none"
        )
