"""Video tokens on disk: written while videos are encoded, read back when pairs are matched."""

import errno
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import torch
from torch import Tensor

from configs.sizes import format_bytes

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class _Place(NamedTuple):
    """Where in the file a video's tokens are."""

    first_byte: int
    shape: torch.Size
    dtype: torch.dtype


class TokenStore:
    """The tokens of the videos that this process encoded, in an unnamed temporary file; a context manager.

    The system frees an unnamed file when its process ends, even if it is killed, so nothing is left behind. The file is
    read, not memory-mapped: mapped pages count as the process's own memory.

    Args:
        folder: where the file lies; created if it does not exist.
        num_videos: the number of videos over all processes, which are assumed to share the disk.
    """

    def __init__(self, folder: Path, num_videos: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.num_videos = folder, num_videos
        # Unbuffered, so that a full disk raises in `add` and not once more when the file is closed.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
        self._places: dict[int, _Place] = {}
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, videos: Sequence[int], tokens_BND: Tensor) -> None:
        """Store the tokens (B, N, D) of videos under their numbers; N may differ between calls.

        `ValueError` if the disk has no room for the tokens of all `num_videos`, estimated from the first video.
        """
        tokens_BND = tokens_BND.cpu().contiguous()
        needed = tokens_BND[0].nbytes * self.num_videos
        if not self._places and shutil.disk_usage(self.folder).free < needed:
            raise self._no_room(needed)

        # An unbuffered write may take only part of the bytes: repeat until all are written.
        self._file.seek(self._size)
        left = tokens_BND.flatten().view(torch.uint8).numpy().data
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise self._no_room(needed) from error

        for video, tokens_ND in zip(videos, tokens_BND, strict=True):
            self._places[video] = _Place(self._size, tokens_ND.shape, tokens_ND.dtype)
            self._size += tokens_ND.nbytes

    def read(self, video: int) -> Tensor:
        """The tokens (1, N, D) of a video, on the CPU, bit-identical to what was added."""
        place = self._places[video]
        tokens = torch.empty((1, *place.shape), dtype=place.dtype)
        self._file.seek(place.first_byte)
        count = self._file.readinto(tokens.flatten().view(torch.uint8).numpy().data)
        assert count == tokens.nbytes, "what was written is read as a whole"
        return tokens

    def _no_room(self, needed: int) -> ValueError:
        free = shutil.disk_usage(self.folder).free
        return ValueError(
            f"output_dir: the tokens of {self.num_videos} videos need {format_bytes(needed)} while their pairs are "
            f"scored, and {self.folder} has {format_bytes(free)} free; make room, set output_dir on a larger disk, or "
            "set evaluation.rerank=0 to rank by cosine alone"
        )
