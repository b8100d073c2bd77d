"""The video encoder: a ViT over frames and patches with divided, joint or space-only attention and token aggregation.

TimeSformer's divided space-time attention (ICML 2021) with TESTA's aggregation (EMNLP 2023). Parameter names are the
released checkpoints'. Shapes: B batch, T frames, C = 3 channels, H W pixels, L patches a frame, D width.
"""

from typing import Literal

import torch
from einops import rearrange, repeat
from timm.layers import PatchEmbed, trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from configs.models.testa import block_schedules
from configs.schedule import held_schedule
from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from models.parts.aggregation import AggregationStep, TokenAggregator
from models.parts.features import EncodedVideo
from models.parts.pixels import normalise_pixels
from models.testa.blocks import NORM_EPS, DividedBlock, JointBlock, resize_in_time


class VideoEncoder(nn.Module):
    """Encode videos (B, T, 3, H, W), normalised, of any number of frames and any size that patches tile.

    The sizes in `video` are those of the position and time embeddings and of the aggregation schedule; other inputs
    have the embeddings resized (nearest) and the schedule capped at what they hold.

    Args:
        activation_checkpointing: `recompute` keeps only block inputs for the backward pass; `offload` moves those to
            the CPU (fairscale), eager only.
    """

    def __init__(
        self,
        model: TestaConfig,
        video: VideoConfig,
        aggregation: AggregationConfig | None = None,
        activation_checkpointing: Literal["none", "recompute", "offload"] = "none",
    ) -> None:
        super().__init__()
        aggregation = aggregation or AggregationConfig()
        model.check(video, aggregation)
        self.attention, self.patch_size, self.width = model.attention, model.patch_size, model.width
        self.grid = (video.image_size // model.patch_size,) * 2
        self.pixel_mean, self.pixel_std = video.pixel_mean, video.pixel_std
        self.schedules = block_schedules(model, video, aggregation)
        self.patch_embed = PatchEmbed(
            img_size=None, patch_size=model.patch_size, embed_dim=model.width, strict_img_size=False
        )
        self.cls_token = nn.Parameter(torch.empty(1, 1, model.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], model.width))
        if model.attention != "space":
            self.time_embed = nn.Parameter(torch.zeros(1, video.num_frames, model.width))
        drop_path = torch.linspace(0, model.drop_path, model.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            self._block(model, video, aggregation, index, drop_path[index]) for index in range(model.depth)
        )
        self.norm = nn.LayerNorm(model.width, eps=NORM_EPS)
        self._initialise()
        self.recompute = activation_checkpointing == "recompute"
        if activation_checkpointing == "offload":
            from fairscale.nn.checkpoint import checkpoint_wrapper  # for nothing else

            for index, block in enumerate(self.blocks):
                self.blocks[index] = checkpoint_wrapper(block, offload_to_cpu=True)

    def _block(
        self, model: TestaConfig, video: VideoConfig, aggregation: AggregationConfig, index: int, drop_path: float
    ) -> nn.Module:
        # Where nothing merges every size is 1, and so its logarithm no bias.
        weighs = aggregation.proportional_attention or aggregation.reducer == "saliency"
        proportional = weighs and any(map(any, self.schedules.values()))
        if model.attention != "divided":
            aggregator = TokenAggregator(aggregation.reducer, "joint", self.schedules["tokens"][index])
            return JointBlock(model.width, model.heads, model.mlp_ratio, drop_path, aggregator, proportional)
        return DividedBlock(
            model.width,
            model.heads,
            model.mlp_ratio,
            drop_path,
            merge_frames=TokenAggregator(
                aggregation.reducer, "time", self.schedules["frames"][index], aggregation.frame_match, aggregation.order
            ),
            merge_patches=TokenAggregator(
                aggregation.reducer, "space", self.schedules["patches"][index], order=aggregation.order
            ),
            proportional_attention=proportional,
            temporal_scaling=video.num_frames if model.temporal_scaling else None,
        )

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        trunc_normal_(self.pos_embed, std=0.02)
        trunc_normal_(self.cls_token, std=0.02)
        if self.attention == "divided":
            # Time starts without effect: the first model is the image model, frame by frame.
            for name, parameter in self.named_parameters():
                if name.endswith("temporal_fc.weight"):
                    nn.init.zeros_(parameter)

    def forward(
        self,
        video_BTCHW: Tensor,
        return_origins: bool = False,
        steps: list[list[AggregationStep]] | None = None,
    ) -> EncodedVideo:
        """Encode normalised videos; see `EncodedVideo`.

        `steps`, an empty list, is given for each block what it merged or dropped; this needs `return_origins`.
        """
        assert steps is None or (return_origins and not self.training), "steps are for looking, and need origins"
        cls, tokens_BTLD = self._embed(video_BTCHW)
        batch, num_frames, num_patches, _ = tokens_BTLD.shape
        # In the order of the tokens as the blocks see them: frame-major, but patch-major for joint attention.
        cells = torch.arange(num_frames * num_patches, device=tokens_BTLD.device)
        cells = (
            cells.view(num_patches, num_frames).T if self.attention == "joint" else cells.view(num_frames, num_patches)
        )
        origins = cells.expand(batch, -1, -1) if return_origins else None
        size = tokens_BTLD.new_ones((batch, num_frames, num_patches), dtype=torch.float32)
        if self.attention == "divided":
            state = self._through_blocks(cls, tokens_BTLD, size, origins, steps)
            return self._finish(state[0], state[1].flatten(1, 2), state[2].flatten(1), state[3])
        if self.attention == "joint":
            tokens = rearrange(tokens_BTLD, "B T L D -> B (L T) D")
            return self._finish(*self._through_blocks(cls, tokens, size.flatten(1), origins, steps))
        cls = repeat(cls, "B 1 D -> (B T) 1 D", T=num_frames)
        state = self._through_blocks(cls, tokens_BTLD.flatten(0, 1), size.flatten(0, 1), None, steps)
        tokens = rearrange(self.norm(torch.cat(state[:2], dim=1)), "(B T) N D -> B (T N) D", B=batch)
        if origins is not None:
            origins = origins + cells[:, :1] // num_patches + 1  # a class token before each frame
        return EncodedVideo(tokens, size.new_ones(tokens.shape[:2]), origins)

    def normalised(self, video_BTCHW: Tensor) -> Tensor:
        """uint8 pixels as this encoder takes them; floats are normalised already."""
        if video_BTCHW.dtype != torch.uint8:
            return video_BTCHW
        return normalise_pixels(video_BTCHW, self.pixel_mean, self.pixel_std, self.cls_token.dtype)

    def trace_video(self, video_BTCHW: Tensor, steps: list[list[AggregationStep]] | None = None) -> EncodedVideo:
        """Encode uint8 videos with origins; `steps`, an empty list, gets what each block merges or drops."""
        return self(self.normalised(video_BTCHW), return_origins=True, steps=steps)

    def _embed(self, video_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Class token (B, 1, D) and patch tokens (B, T, L, D) with their place and time added."""
        batch, num_frames, _, height, width = video_BTCHW.shape
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"frames of {height} x {width} pixels cannot be cut into patches of {self.patch_size}")
        # As a matrix product: convolutions of this kind take slower paths on several devices.
        cells = rearrange(video_BTCHW, "B T C (H P) (W Q) -> B T (H W) (C P Q)", P=self.patch_size, Q=self.patch_size)
        projection = self.patch_embed.proj
        patches = F.linear(cells, projection.weight.flatten(1), projection.bias)
        place = self.pos_embed[:, 1:]
        grid = (height // self.patch_size, width // self.patch_size)
        if grid != self.grid:
            place = rearrange(place, "1 (H W) D -> 1 D H W", H=self.grid[0])
            place = rearrange(F.interpolate(place, size=grid, mode="nearest"), "1 D H W -> 1 (H W) D")
        tokens = patches + place[:, None]
        if self.attention != "space":
            tokens = tokens + resize_in_time(self.time_embed, num_frames)[:, :, None]
        return (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1), tokens

    def _through_blocks(
        self,
        cls: Tensor,
        tokens: Tensor,
        size: Tensor,
        origins: Tensor | None,
        steps: list[list[AggregationStep]] | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        for block in self.blocks:
            if steps is not None:
                steps.append([])
                cls, tokens, size, origins = block(cls, tokens, size, origins, steps[-1])
            elif self.recompute and self.training:
                cls, tokens, size, origins = checkpoint(block, cls, tokens, size, origins, use_reentrant=False)
            else:
                cls, tokens, size, origins = block(cls, tokens, size, origins)
        return cls, tokens, size, origins

    def _finish(self, cls: Tensor, tokens: Tensor, size: Tensor, origins: Tensor | None) -> EncodedVideo:
        if origins is not None:
            origins = torch.where(origins < 0, -1, origins + 1)
        return EncodedVideo(self.norm(torch.cat([cls, tokens], dim=1)), F.pad(size, (1, 0), value=1.0), origins)

    def capped(self, num_frames: int, num_patches: int) -> list[str]:
        """What of the schedule a video of this size cannot hold, one line an axis; empty when it holds all of it."""
        held_by = {"frames": (num_frames, 1), "patches": (num_patches, 0), "tokens": (num_frames * num_patches, 0)}
        lines = []
        for axis, schedule in self.schedules.items():
            held = held_schedule(schedule, *held_by[axis])
            if held != schedule:
                lines.append(f"{axis} to leave per block {schedule}, but {held_by[axis][0]} {axis} hold only {held}")
        return lines

    @torch.no_grad()
    def fold_for_inference(self, dtype: torch.dtype | None = None) -> "VideoEncoder":
        """Prepare for nothing but inference on the device it is on, in place; returns itself.

        `temporal_attn.proj` and `temporal_fc` become one linear layer, for good. On a CPU the weights are packed to
        compute in `dtype`: where autocast will be on its format, by default the weights' own. Outputs stay equal to
        1e-5 in float32. The folded encoder no longer trains, and neither loads nor makes checkpoints.
        """
        dtype = dtype or self.cls_token.dtype
        for block in self.blocks:
            assert isinstance(block, DividedBlock | JointBlock)
            block.fold_for_inference(dtype)
        return self
