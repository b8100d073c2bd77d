"""The models of each system besides TESTA that the checks are done with, tiny and of full width, and their input."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from datasets.objects.along import BOXES, CLASSES, TRAJECTORY_IDS
from datasets.samples import Clip
from tests.gpu.checks.models import pixels
from tests.gpu.checks.sizes import SIZES, Size

OBJECTS = 2
"""Objects a frame, in the models that read them."""


@dataclass(frozen=True)
class SystemSettings:
    """A system's sections.

    Attributes:
        tiny, full: the `model` section of `SIZES["tiny"]`, and of two blocks in full width; `whole` is as published.
        sections: all other sections.
        merging: the `aggregation` section; empty where the system merges nothing.
        words: tokens of a text when memory is planned.
        prepare: changes fresh weights that would hide a branch.
    """

    tiny: dict[str, Any]
    full: dict[str, Any]
    whole: dict[str, Any]
    sections: dict[str, Any]
    merging: dict[str, dict[str, Any]]
    words: int
    prepare: Callable[[nn.Module], None] = lambda model: None

    @property
    def merges(self) -> bool:
        """Whether tokens merge."""
        return bool(self.merging)

    def settings(self, size: Size, merges: bool, whole: bool) -> dict[str, Any]:
        """All sections but those that every system's configuration shares."""
        name = name_of(size)
        model = self.tiny if name == "tiny" else self.whole if whole else self.full
        video = {"num_frames": size.video.num_frames, "image_size": size.video.image_size}
        video |= {"train_sampling": "uniform", "eval_sampling": "uniform"}
        aggregation = self.merging[name] if merges and self.merging else {}
        return {**self.sections, "model": model, "video": video, "aggregation": aggregation}


def name_of(size: Size) -> str:
    """Which of `SIZES` this is."""
    return next(name for name, one in SIZES.items() if one.batch == size.batch)


def clip_of(size: Size, device: torch.device, system: str) -> Clip:
    """Random clips (B, T, 3, H, W), uint8, the same on every device; with boxes where the model reads them."""
    frames = pixels(size, device)
    clip = Clip.of_pixels(frames)
    if "objects" not in SETTINGS[system].tiny:
        return clip.to(device)
    batch, num_frames, _, _, side = frames.shape
    corners = torch.tensor([[0.0, 0.0, 0.5, 0.6], [0.3, 0.2, 0.9, 1.0]]) * side
    extras = {
        BOXES: corners.expand(batch, num_frames, -1, -1).clone(),
        CLASSES: torch.arange(1, OBJECTS + 1).expand(batch, num_frames, -1).clone(),
        TRAJECTORY_IDS: torch.arange(1, 2 * OBJECTS + 1).expand(batch, -1).clone(),
    }
    return clip._replace(extras=extras).to(device)


def _ids(start: int, end: int) -> Tensor:
    """Three texts of different lengths, padded with 0."""
    rows = [[start, 7, 8, 9, 10, end], [start, 30, 31, end], [start, 5, end]]
    return torch.tensor([row + [0] * (6 - len(row)) for row in rows])


@torch.no_grad()
def _with_time(model: nn.Module) -> None:
    """Fresh attention over time adds nothing, and nothing would be seen of it."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".timeattn." in name:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


_TINY_BERT = {
    "tokenizer": "from_data", "vocab_size": 200, "depth": 2, "width": 32, "heads": 2, "intermediate": 48,
    "max_positions": 16, "dropout": 0.0, "fusion_layer": 1,
}  # fmt: skip
_TINY_CLIP = {"tokenizer": "from_data", "vocab_size": 560, "max_positions": 16, "depth": 2, "width": 32, "heads": 2}
_TINY = {"depth": 2, "width": 32, "heads": 2, "patch_size": 8, "embed_dim": 16}
_STOA = {"objects": "fusion", "objects_per_frame": OBJECTS, "dropout": 0.0}

SETTINGS: dict[str, SystemSettings] = {
    "umt": SystemSettings(
        tiny={"name": "umt", **_TINY, "pooling": "all", "text": _TINY_BERT},
        full={"name": "umt", "depth": 2, "pooling": "all", "text": {"depth": 2, "fusion_layer": 1, "dropout": 0.0}},
        whole={"name": "umt", "pooling": "all", "text": {"dropout": 0.0}},
        sections={"objective": {"name": "unmasked_teacher", "losses": ["vtc", "vtm"]}},
        merging={
            "tiny": {"reducer": "saliency", "tokens_per_block": [20]},
            "full": {"reducer": "saliency", "tokens_per_block": [300]},
        },
        words=24,
    ),
    "tvts": SystemSettings(
        tiny={"name": "tvts", **_TINY, "sort_heads": 2, "text": {**_TINY_CLIP, "trained_blocks": 2}},
        full={"name": "tvts", "depth": 2, "text": {"depth": 2, "trained_blocks": 2}},
        whole={"name": "tvts"},
        sections={
            "objective": {"losses": ["vtc"], "queue_size": 0, "momentum": 0.0, "alpha": 0.0, "temperature": 0.05}
        },
        merging={
            "tiny": {"reducer": "geometry", "frames_per_block": 1, "patches_per_block": 3},
            "full": {"reducer": "geometry", "frames_per_block": 1, "patches_per_block": 12},
        },
        words=24,
        prepare=_with_time,
    ),
    "stoa": SystemSettings(
        tiny={
            "name": "stoa", **_TINY, **_STOA, "joint_depth": 1, "fusion_depth": 1, "fusion_heads": 2,
            "fusion_positions": 60, "max_words": 12, "text": _TINY_CLIP,
        },
        full={"name": "stoa", "depth": 3, "fusion_depth": 1, **_STOA, "text": {"depth": 2}},
        whole={"name": "stoa", **_STOA},
        sections={"data": {"root": ".", "objects": "boxes"}, "objective": {"name": "fusion", "losses": ["vtc", "vtm"]}},
        merging={},
        words=24,
    ),
}  # fmt: skip
"""By system; TESTA's own checks are those of the other modules."""

IDS: dict[str, Tensor] = {"umt": _ids(101, 102), "tvts": _ids(1, 559), "stoa": _ids(1, 559)}
"""Texts that all sizes of a system can read: CLIP's end with the largest id."""
