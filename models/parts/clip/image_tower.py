"""CLIP's image tower: a ViT with a norm before its blocks, and a projection into the space shared with texts.

Radford et al., ICML 2021. Parameter names are OpenAI's, without `visual.`.
Shapes: B images, H W pixels, L patches, D width, E width of the shared space.
"""

from typing import Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.clip.blocks import NORM_EPS, ClipTransformer
from models.parts.clip.sizes import ImageTowerSizes

Resize = Literal["nearest", "bicubic"]


class ImageFeatures(NamedTuple):
    """What the tower makes of images.

    Attributes:
        tokens: (B, 1 + L, D) after `ln_post`, before the projection; the class token first.
        embedding: (B, E) projected class token, not normalised.
    """

    tokens: Tensor
    embedding: Tensor


class ImageTower(nn.Module):
    """Encode images (B, 3, H, W), normalised, of any size that patches tile.

    Args:
        resize: how to fit the positional embedding to images of another size.
    """

    def __init__(self, sizes: ImageTowerSizes, resize: Resize = "nearest") -> None:
        super().__init__()
        self.sizes, self.resize = sizes, resize
        self.conv1 = nn.Conv2d(3, sizes.width, sizes.patch_size, sizes.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(sizes.width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + sizes.grid**2, sizes.width))
        self.ln_pre = nn.LayerNorm(sizes.width, eps=NORM_EPS)
        self.transformer = ClipTransformer(sizes.width, sizes.depth, sizes.heads, sizes.activation)
        self.ln_post = nn.LayerNorm(sizes.width, eps=NORM_EPS)
        self.proj = nn.Parameter(torch.empty(sizes.width, sizes.embed_dim))
        for parameter in (self.class_embedding, self.positional_embedding, self.proj):
            nn.init.normal_(parameter, std=sizes.width**-0.5)

    def forward(self, images_BCHW: Tensor) -> ImageFeatures:
        """Features of images; each is encoded alone."""
        return self.finish(self.transformer(self.embed(images_BCHW)))

    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Tokens (B, 1 + L, D) that go into the first block: class token, then patches row by row."""
        patches = embed_patches(images_BCHW, self.conv1.weight)
        height, width = (side // self.sizes.patch_size for side in images_BCHW.shape[-2:])
        cls = self.class_embedding.expand(len(patches), 1, -1)
        position = resize_positions(self.positional_embedding, (height, width), self.resize)
        return self.ln_pre(torch.cat([cls, patches], dim=1) + position)

    def finish(self, tokens_BND: Tensor) -> ImageFeatures:
        """Features of what leaves the last block."""
        tokens = self.ln_post(tokens_BND)
        return ImageFeatures(tokens, tokens[:, 0] @ self.proj)


def embed_patches(images: Tensor, kernel: Tensor, keep_BL: Tensor | None = None) -> Tensor:
    """Images (..., 3, H, W) as patch tokens (..., L, D), row by row; `kernel` is a convolution's (D, 3, P, P).

    `keep_BL` selects patches in each frame of clips (B, T, 3, H, W), in this order. ValueError if patches of
    P pixels do not tile the images.
    """
    # Project by a matrix product: this convolution takes slower paths on several devices.
    return F.linear(cut_patches(images, kernel.shape[-1], keep_BL), kernel.flatten(1))


def cut_patches(images: Tensor, patch_size: int, keep_BL: Tensor | None = None) -> Tensor:
    """The pixels (..., L, 3 P P) of each patch; see `embed_patches`."""
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size:
        raise ValueError(f"images of {height} x {width} pixels cannot be cut into patches of {patch_size}")
    pixels = rearrange(images, "... C (H P) (W Q) -> ... (H W) (C P Q)", P=patch_size, Q=patch_size)
    if keep_BL is not None:
        index = keep_BL[:, None, :, None].expand(-1, pixels.shape[1], -1, pixels.shape[3])
        pixels = pixels.gather(2, index)
    return pixels


def resize_positions(embedding: Tensor, grid: tuple[int, int], resize: Resize) -> Tensor:
    """Fit a square positional embedding (1 + L0, D), the class token's first, to another grid of patches."""
    side = round((len(embedding) - 1) ** 0.5)
    if grid == (side, side):
        return embedding

    places = rearrange(embedding[1:], "(H W) D -> 1 D H W", H=side)
    if resize == "nearest":
        places = F.interpolate(places, size=grid, mode="nearest")
    else:
        places = F.interpolate(places, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([embedding[:1], rearrange(places, "1 D H W -> (H W) D")])
