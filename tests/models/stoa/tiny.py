"""A small STOA-VLP with random weights, and clips, objects and texts for it."""

import torch
from torch import Tensor, nn

from models.stoa.model import StoaModel
from models.stoa.objects import NO_BOX, ClipObjects
from models.stoa.sizes import StoaSizes

BOS, EOS = 62, 63
SIZES = {
    "image_size": 16,
    "patch_size": 4,
    "num_frames": 3,
    "vision_width": 16,
    "vision_depth": 3,
    "vision_heads": 2,
    "embed_dim": 8,
    "text_width": 8,
    "text_depth": 2,
    "text_heads": 2,
    "context_length": 9,
    "vocab_size": 64,
    "max_words": 7,
    "fusion_depth": 2,
    "fusion_heads": 2,
    "fusion_positions": 24,
    "objects_per_frame": 3,
    "num_trajectories": 4,
    "num_actions": 2,
}


def tiny_model(seed: int = 0, **sizes: object) -> StoaModel:
    """A model whose every weight matters, in evaluation."""
    torch.manual_seed(seed)
    model = StoaModel(StoaSizes(**{**SIZES, **sizes})).eval()  # type: ignore[arg-type]
    randomise(model)
    return model


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.ndim > 0:
            parameter.add_(0.3 * torch.randn_like(parameter))


def frames(num_clips: int, seed: int = 1) -> Tensor:
    """Normalised frames (B, T, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_clips, 3, 3, 16, 16, generator=generator)


def objects(counts: list[int], seed: int = 2) -> ClipObjects:
    """Boxes of as many clips, with `counts` boxes in each of its frames."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.full((len(counts), 3, 3, 4), NO_BOX)
    classes = torch.zeros(len(counts), 3, 3, dtype=torch.int64)
    ids = torch.zeros(len(counts), 4, dtype=torch.int64)
    for clip, count in enumerate(counts):
        corners = torch.rand(3, count, 2, generator=generator) * 9
        sides = 1 + 5 * torch.rand(3, count, 2, generator=generator)
        boxes[clip, :, :count] = torch.cat([corners, corners + sides], dim=-1)
        classes[clip, :, :count] = torch.arange(1, count + 1)
        ids[clip, :count] = torch.arange(1, count + 1)
    return ClipObjects(boxes, classes, ids)


def texts(lengths: list[int], num_tokens: int = 7, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Ids and mask (P, S) of random texts of these lengths, start and end token included."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, BOS, (len(lengths), num_tokens), generator=generator)
    mask = torch.arange(num_tokens) < torch.tensor(lengths)[:, None]
    ids[:, 0] = BOS
    ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = EOS
    return ids * mask, mask.long()
