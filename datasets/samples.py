"""What a data set hands out and batches are made of: clips, their texts, and which files could not be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

Failure = dict[str, Any]
"""`{"video": path, "reason": one line, "excluded": bool}`; the last is true of what hung or ended its reader."""


class Clip(NamedTuple):
    """Frames of a video, or of an image that is shown as often; in a batch all tensors begin with B.

    Attributes:
        pixels: uint8 (T, 3, H, W), of any strides; (W, T, 3, H, W) where a sample has sliding windows.
        times: float64 (T,), seconds from the video's first frame; zeros for an image.
        extras: what else goes along with the frames, by name, such as boxes and classes of objects.
    """

    pixels: Tensor
    times: Tensor
    extras: dict[str, Tensor]

    @classmethod
    def of_pixels(cls, pixels: Tensor) -> "Clip":
        """A clip, or a batch of clips (..., T, 3, H, W), whose times are not known: zeros."""
        return cls(pixels, torch.zeros(pixels.shape[:-3], dtype=torch.float64), {})

    @property
    def has_windows(self) -> bool:
        """Whether this is not one clip but the sliding windows of a video."""
        return self.pixels.dim() == 5

    def to(self, device: torch.device, non_blocking: bool = False) -> "Clip":
        """The same clip with all of its tensors on a device."""
        extras = {name: extra.to(device, non_blocking=non_blocking) for name, extra in self.extras.items()}
        pixels, times = (part.to(device, non_blocking=non_blocking) for part in (self.pixels, self.times))
        return Clip(pixels, times, extras)


@dataclass(frozen=True)
class Sample:
    """A clip with its texts.

    Attributes:
        clip: None if the file cannot be read, in evaluation.
        texts, rows: each text, cleaned, and its row in the table of the data set.
        index: position of the video in the table.
        name: path of the video.
        failed: the files that could not be read before this one was taken in their place, or this one itself.
        source: which of several sources it is of, where each batch is of one.
    """

    clip: Clip | None
    texts: list[str]
    rows: list[int]
    index: int
    name: str
    failed: list[Failure]
    source: int | None = None


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """One batch of B clips and their N texts; samples without a clip are left out.

    A sample whose clip holds windows (W, T, ...) gives W clips, one after the other.

    `clip` is a `Clip`, None if there is none. `text` are the texts of the first sample, of the second, and so on;
    `row` int64 (N,) and `text_sample` int64 (N,) say which row each is and which clip of the batch it is of. `index`
    int64 (B,) is the video of each clip, `names` are the videos'; `failed` is what could not be read; `source` is that
    of all samples.
    """
    assert len({sample.source for sample in samples}) == 1, "a batch is of one source, or says none"
    readable = [sample for sample in samples if sample.clip is not None]
    clips = [sample.clip for sample in readable if sample.clip is not None]
    of_each = [len(clip.pixels) if clip.has_windows else 1 for clip in clips]

    first_clip = accumulate(of_each, initial=0)
    text_sample = [place for place, sample in zip(first_clip, readable, strict=False) for _ in sample.texts]
    index = [sample.index for count, sample in zip(of_each, readable, strict=True) for _ in range(count)]
    return {
        "clip": _collate_clips(clips),
        "text": [text for sample in readable for text in sample.texts],
        "text_sample": torch.tensor(text_sample, dtype=torch.int64),
        "row": torch.tensor([row for sample in readable for row in sample.rows], dtype=torch.int64),
        "index": torch.tensor(index, dtype=torch.int64),
        "names": [sample.name for sample in readable],
        "failed": [failure for sample in samples for failure in sample.failed],
        "source": samples[0].source,
    }


def _collate_clips(clips: Sequence[Clip]) -> Clip | None:
    """Clips lie as they were read, repeated or cropped.

    This copies them for the first and only time, row by row, in a worker into the memory that it shares with the
    trainer.
    """
    if not clips:
        return None
    if clips[0].has_windows:
        return Clip(torch.cat([clip.pixels for clip in clips]), torch.cat([clip.times for clip in clips]), {})
    extras = {}
    for name in clips[0].extras:
        extras[name] = default_collate([clip.extras[name] for clip in clips])
    times = default_collate([clip.times for clip in clips])
    return Clip(default_collate([clip.pixels for clip in clips]), times, extras)
