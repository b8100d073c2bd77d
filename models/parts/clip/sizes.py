"""Sizes of CLIP's towers, and the published models by name."""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True)
class ImageTowerSizes:
    """An image tower; `image_size` is the one that the positional embedding is made for.

    OpenAI's models use `quick_gelu`, OpenCLIP's (LAION) the exact `gelu`; the files do not say which.
    """

    width: int
    depth: int
    heads: int
    patch_size: int
    image_size: int
    embed_dim: int
    activation: Activation = "quick_gelu"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} cannot be split into {self.heads} heads")
        if self.image_size % self.patch_size:
            raise ValueError(f"images of {self.image_size} pixels cannot be cut into patches of {self.patch_size}")

    @property
    def grid(self) -> int:
        """Patches along each side of an image."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class TextTowerSizes:
    """A text tower; `context` is the number of places in its positional embedding."""

    width: int
    depth: int
    heads: int
    embed_dim: int
    context: int = 77
    vocab_size: int = 49408
    activation: Activation = "quick_gelu"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} cannot be split into {self.heads} heads")


PUBLISHED: dict[str, tuple[ImageTowerSizes, TextTowerSizes]] = {
    "ViT-B/32": (ImageTowerSizes(768, 12, 12, 32, 224, 512), TextTowerSizes(512, 12, 8, 512)),
    "ViT-B/16": (ImageTowerSizes(768, 12, 12, 16, 224, 512), TextTowerSizes(512, 12, 8, 512)),
    "ViT-L/14": (ImageTowerSizes(1024, 24, 16, 14, 224, 768), TextTowerSizes(768, 12, 12, 768)),
    "ViT-L/14@336px": (ImageTowerSizes(1024, 24, 16, 14, 336, 768), TextTowerSizes(768, 12, 12, 768)),
    "ViT-H/14": (
        ImageTowerSizes(1280, 32, 16, 14, 224, 1024, "gelu"),
        TextTowerSizes(1024, 24, 16, 1024, activation="gelu"),
    ),
}
"""Image and text tower of OpenAI's ViTs, and of OpenCLIP's ViT-H/14 (laion2b_s32b_b79k)."""
