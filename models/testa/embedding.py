"""How videos become tokens with the embeddings of their place and time.

Shapes: B batch, T frames, C = 3 channels, H W pixels, L patches a frame, D width.
"""

from typing import Literal

import torch
from einops import rearrange
from timm.layers import PatchEmbed
from torch import Tensor, nn
from torch.nn import functional as F

from configs.model import TimeTable
from models.parts.chunks import Assembled, Chunks, residual_dtype, run_step, spans
from models.parts.pixels import normalise_pixels
from models.parts.time_table import stretch_times
from models.testa.long_video import LongVideo


class EmbedsVideos(nn.Module):
    """The embeddings of a video encoder, which owns them under the released checkpoints' names.

    Attributes:
        grid: rows and columns of patches that `pos_embed` has.
    """

    attention: Literal["divided", "joint", "space"]
    patch_size: int
    grid: tuple[int, int]
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    time_table: TimeTable
    patch_embed: PatchEmbed
    cls_token: nn.Parameter
    pos_embed: nn.Parameter
    time_embed: nn.Parameter

    def _embed(self, video_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Class token (B, 1, D) and patch tokens (B, T, L, D), with position and time embeddings added."""
        batch, num_frames = video_BTCHW.shape[:2]
        place = self._place(video_BTCHW)
        tokens = self._project_patches(video_BTCHW) + place[:, None]
        if self.attention != "space":
            tokens = tokens + stretch_times(self.time_embed, num_frames, self.time_table)[:, :, None]
        return (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1), tokens

    def _project_patches(self, video_BTCHW: Tensor) -> Tensor:
        """Patches (B, T, L, D) without embeddings."""
        # Project by a matrix product: this convolution takes slower paths on several devices.
        cells = rearrange(video_BTCHW, "B T C (H P) (W Q) -> B T (H W) (C P Q)", P=self.patch_size, Q=self.patch_size)
        projection = self.patch_embed.proj
        return F.linear(cells, projection.weight.flatten(1), projection.bias)

    def _place(self, video_BTCHW: Tensor) -> Tensor:
        """The position embedding (1, L, D) of the patches, resized if the input has another grid of them."""
        height, width = video_BTCHW.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"frames of {height} x {width} pixels cannot be cut into patches of {self.patch_size}")

        place = self.pos_embed[:, 1:]
        grid = (height // self.patch_size, width // self.patch_size)
        if grid != self.grid:
            place = rearrange(place, "1 (H W) D -> 1 D H W", H=self.grid[0])
            place = rearrange(F.interpolate(place, size=grid, mode="nearest"), "1 D H W -> 1 (H W) D")
        return place

    def _embed_in_chunks(self, video_BTCHW: Tensor, chunks: Chunks, return_origins: bool) -> LongVideo:
        batch, num_frames, _, height, width = video_BTCHW.shape
        place, time = self._place(video_BTCHW), stretch_times(self.time_embed, num_frames, self.time_table)

        dtype = residual_dtype(self.cls_token)

        def step(pixels: Tensor, time: Tensor) -> Tensor:
            if pixels.dtype == torch.uint8:
                pixels = normalise_pixels(pixels, self.pixel_mean, self.pixel_std, self.cls_token.dtype)
            return (self._project_patches(pixels) + place[:, None] + time[:, :, None]).to(dtype)

        embedded = Assembled(1, num_frames)
        for frames in spans(num_frames, chunks.frames):
            embedded.put(frames, run_step(step, video_BTCHW[:, frames], time[:, frames]))

        num_patches = place.shape[1]
        cells = torch.arange(num_frames * num_patches, device=place.device).view(num_frames, num_patches)
        return LongVideo(
            cls=(self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1).to(dtype),
            tokens=embedded.whole(),
            size=place.new_ones((batch, num_frames, num_patches), dtype=torch.float32),
            origins=cells.expand(batch, -1, -1) if return_origins else None,
        )
