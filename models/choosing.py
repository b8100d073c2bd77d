"""What multiple choice may ask of a model that scores options in a way of its own."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Chooser(Protocol):
    """Scores of a video's own options; other models are asked for similarities and matches."""

    def choose(self, video_BTCHW: Tensor, ids: Tensor, mask: Tensor, about: Tensor) -> Tensor:
        """Scores (P,) of options, ids and mask (P, S), each of the uint8 video `about` (P,); the highest is chosen."""
        ...
