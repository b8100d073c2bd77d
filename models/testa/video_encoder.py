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
from models.parts.chunks import Assembled, Chunks, chunks_within, spans
from models.parts.features import EncodedVideo
from models.parts.pixels import normalise_pixels
from models.parts.ragged import without_padding
from models.parts.run_length import KeptPatches, RunLength, num_tokens_in_blocks
from models.parts.squares import Quadtree, Squares, plan_patches
from models.testa.blocks import NORM_EPS, DividedBlock, JointBlock
from models.testa.embedding import EmbedsVideos
from models.testa.kept import through_kept
from models.testa.long_video import recompute_block, run_block


class VideoEncoder(EmbedsVideos):
    """Encode normalised videos (B, T, 3, H, W) with any number of frames, of any size that patches tile.

    `video` sets the sizes of the position and time embeddings and of the aggregation schedule. For other inputs, the
    embeddings are resized (nearest, times as `video.time_table` says) and the schedule is capped at what they hold.

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
        self.working_memory, self.time_table = video.working_memory, video.time_table
        patch_major = model.attention == "joint"
        self.before_blocks: RunLength | Quadtree | None = RunLength.of(
            aggregation, model.patch_size, video.pixel_mean, video.pixel_std, patch_major
        ) or Quadtree.of(aggregation, aggregation.proportional_attention, patch_major)

        # Embeddings. `timm`'s module only holds the projection: `_embed` computes it.
        self.patch_embed = PatchEmbed(
            img_size=None, patch_size=model.patch_size, embed_dim=model.width, strict_img_size=False
        )
        self.cls_token = nn.Parameter(torch.empty(1, 1, model.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], model.width))
        if model.attention != "space":
            self.time_embed = nn.Parameter(torch.zeros(1, video.num_frames, model.width))

        # Blocks, with a drop path rate that grows linearly with depth.
        drop_path = torch.linspace(0, model.drop_path, model.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            self._block(model, video, aggregation, index, drop_path[index]) for index in range(model.depth)
        )

        self.norm = nn.LayerNorm(model.width, eps=NORM_EPS)
        self._initialise()

        self.recompute = activation_checkpointing == "recompute"
        self.packs_rows = activation_checkpointing != "offload"  # which calls blocks as a whole
        if activation_checkpointing == "offload":
            if self.before_blocks is not None and model.attention == "divided":
                raise ValueError(
                    f"train.activation_checkpointing: offload does not go with {aggregation.reducer} and divided "
                    "attention; set it to recompute"
                )
            from fairscale.nn.checkpoint import checkpoint_wrapper  # imported only when it is used

            for index, block in enumerate(self.blocks):
                self.blocks[index] = checkpoint_wrapper(block, offload_to_cpu=True)

    def _block(
        self, model: TestaConfig, video: VideoConfig, aggregation: AggregationConfig, index: int, drop_path: float
    ) -> nn.Module:
        # Where nothing merges, every size is 1 and its logarithm 0, so no bias is needed.
        weighs = aggregation.proportional_attention or aggregation.in_blocks == "saliency"
        proportional = weighs and any(map(any, self.schedules.values()))
        if self.before_blocks is not None:
            proportional = proportional or self.before_blocks.has_sizes

        # Only divided attention has two axes to reduce.
        if model.attention != "divided":
            aggregator = TokenAggregator(
                aggregation.in_blocks, "joint", self.schedules["tokens"][index], merge_weight=aggregation.merge_weight
            )
            return JointBlock(model.width, model.heads, model.mlp_ratio, drop_path, aggregator, proportional)

        return DividedBlock(
            model.width,
            model.heads,
            model.mlp_ratio,
            drop_path,
            merge_frames=TokenAggregator(
                aggregation.reducer,
                "time",
                self.schedules["frames"][index],
                aggregation.frame_match,
                aggregation.order,
                merge_weight=aggregation.merge_weight,
            ),
            merge_patches=TokenAggregator(
                aggregation.reducer,
                "space",
                self.schedules["patches"][index],
                order=aggregation.order,
                merge_weight=aggregation.merge_weight,
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

        # Time starts without effect: at first the model is the image model, applied to each frame.
        if self.attention == "divided":
            for name, parameter in self.named_parameters():
                if name.endswith("temporal_fc.weight"):
                    nn.init.zeros_(parameter)

    def forward(
        self,
        video_BTCHW: Tensor,
        return_origins: bool = False,
        steps: list[list[AggregationStep]] | None = None,
        kept: KeptPatches | Squares | None = None,
    ) -> EncodedVideo:
        """Encode normalised videos; see `EncodedVideo`.

        Fills `steps`, an empty list, with what each block merged or dropped; this needs `return_origins`. `kept` are
        the patches that stay, from `kept_patches`, by default found here; a compiled encoder has to be given them.
        """
        assert steps is None or (return_origins and not self.training), "steps are for looking, and need origins"
        kept = self.kept_patches(video_BTCHW) if kept is None else kept
        chunks = self._chunks(video_BTCHW)
        if chunks is not None and kept is not None:
            raise ValueError(
                "aggregation.reducer: run_length does not encode videos in chunks; raise video.working_memory, lower "
                "video.num_frames, or take another reducer"
            )
        if chunks is not None:
            return self._encode_in_chunks(video_BTCHW, chunks, return_origins, steps)

        cls, tokens_BTLD = self._embed(video_BTCHW)
        batch, num_frames, num_patches, _ = tokens_BTLD.shape

        # Number the cells in the order in which the blocks see them: frame-major, but patch-major for joint attention.
        cells = torch.arange(num_frames * num_patches, device=tokens_BTLD.device)
        cells = (
            cells.view(num_patches, num_frames).T if self.attention == "joint" else cells.view(num_frames, num_patches)
        )
        origins = cells.expand(batch, -1, -1) if return_origins else None

        size = tokens_BTLD.new_ones((batch, num_frames, num_patches), dtype=torch.float32)

        # What does not change leaves before the first block.
        if kept is not None:
            is_joint = self.attention == "joint"
            order = "B T L D -> B (L T) D" if is_joint else "B T L D -> B (T L) D"
            return self._encode_kept(cls, rearrange(tokens_BTLD, order), cells, kept, return_origins, steps)

        # Divided attention keeps frames and patches on axes of their own, joint attention has one axis for both.
        if self.attention == "divided":
            state = self._through_blocks(cls, tokens_BTLD, size, origins, steps)
            return self._finish(state[0], state[1].flatten(1, 2), state[2].flatten(1), state[3])
        if self.attention == "joint":
            tokens = rearrange(tokens_BTLD, "B T L D -> B (L T) D")
            return self._finish(*self._through_blocks(cls, tokens, size.flatten(1), origins, steps))

        # Space-only attention: every frame is encoded as an image of its own, with its own class token.
        cls = repeat(cls, "B 1 D -> (B T) 1 D", T=num_frames)
        state = self._through_blocks(cls, tokens_BTLD.flatten(0, 1), size.flatten(0, 1), None, steps)
        tokens = rearrange(self.norm(torch.cat(state[:2], dim=1)), "(B T) N D -> B (T N) D", B=batch)
        if origins is not None:
            origins = origins + cells[:, :1] // num_patches + 1  # skip the class token before each frame
        return EncodedVideo(tokens, size.new_ones(tokens.shape[:2]), origins)

    def normalised(self, video_BTCHW: Tensor) -> Tensor:
        """Normalise uint8 pixels; floats are normalised already, and a long video's stay uint8 until their chunk."""
        if video_BTCHW.dtype != torch.uint8 or self._chunks(video_BTCHW) is not None:
            return video_BTCHW
        return normalise_pixels(video_BTCHW, self.pixel_mean, self.pixel_std, self.cls_token.dtype)

    @torch.no_grad()
    def kept_patches(self, video_BTCHW: Tensor) -> KeptPatches | Squares | None:
        """Which patches of uint8 or normalised videos stay or merge before the first block; None unless some do."""
        few_lengths = self._compiled_call_impl is not None
        return plan_patches(self.before_blocks, video_BTCHW, self._embedded, self.patch_size, few_lengths)

    def _embedded(self, video_BTCHW: Tensor) -> Tensor:
        """Patches (B, T, L, D) of uint8 or normalised videos, without their places."""
        return self._project_patches(self.normalised(video_BTCHW).to(self.cls_token.dtype))

    def trace_video(self, video_BTCHW: Tensor, steps: list[list[AggregationStep]] | None = None) -> EncodedVideo:
        """Encode uint8 videos with origins; fills the empty list `steps` with what each block merges or drops."""
        kept = self.kept_patches(video_BTCHW)
        return self(self.normalised(video_BTCHW), return_origins=True, steps=steps, kept=kept)

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

    def _encode_kept(
        self,
        cls: Tensor,
        tokens_BND: Tensor,
        cells: Tensor,
        kept: KeptPatches | Squares,
        return_origins: bool,
        steps: list[list[AggregationStep]] | None,
    ) -> EncodedVideo:
        """Encode what stays of all tokens (B, N, D); `cells` (T, L) says which token each patch is."""
        assert self.before_blocks is not None
        weighs, recomputes = self.before_blocks.weigh_lengths, self.recompute and self.training
        selected, size, origins = kept.select(tokens_BND), kept.sizes(weighs), kept.origins if return_origins else None
        if self.attention == "divided" or (self.packs_rows and kept.counts is not None):
            cls, tokens = through_kept(self.blocks, cls, selected, kept, weighs, recompute=recomputes)
            if steps is not None:
                steps += [[] for _ in self.blocks]  # these blocks take nothing away
        else:
            cls, tokens, size, origins = self._through_blocks(cls, selected, size, origins, steps)

        # The first step is the one before all blocks.
        if steps is not None:
            steps[0].insert(0, AggregationStep("joint", tokens_BND, kept.as_plan(cells), kept.origins))

        # Squares have their areas, whether attention knew them or not.
        size = kept.areas.float() if isinstance(kept, Squares) else size
        return self._finish(cls, tokens, size, origins, kept.mask)

    def _chunks(self, video_BTCHW: Tensor) -> Chunks | None:
        """How to divide a long video, so that each step fits into the working memory; None where the whole does."""
        if self.attention != "divided":
            return None
        num_frames, _, height, width = video_BTCHW.shape[1:]
        num_patches = (height // self.patch_size) * (width // self.patch_size)
        return chunks_within(self.working_memory, num_frames, num_patches, self.width)

    @torch.compiler.disable
    def _encode_in_chunks(
        self,
        video_BTCHW: Tensor,
        chunks: Chunks,
        return_origins: bool,
        steps: list[list[AggregationStep]] | None,
    ) -> EncodedVideo:
        """Like `forward` with divided attention, to 1e-5. Under autocast, tokens stay in its dtype between blocks."""
        video = self._embed_in_chunks(video_BTCHW, chunks, return_origins)
        for block in self.blocks:
            if not isinstance(block, DividedBlock):
                raise ValueError(
                    "train.activation_checkpointing: offload does not take videos that are encoded in chunks; "
                    "set it to recompute, or raise video.working_memory"
                )
            if steps is not None:
                steps.append([])
            if self.recompute and self.training:
                video = recompute_block(block, video, chunks)
            else:
                run_block(block, video, chunks, None if steps is None else steps[-1])

        # The last norm. In the output the class token is number 0, so origins move up by one.
        num_frames, num_patches = video.tokens.shape[1:3]
        normed = Assembled(1, 1 + num_frames * num_patches)
        normed.put(slice(0, 1), self.norm(video.cls))
        for frames in spans(num_frames, chunks.frames):
            place = slice(1 + frames.start * num_patches, 1 + frames.stop * num_patches)
            normed.put(place, self.norm(video.tokens[:, frames].flatten(1, 2)))
        origins = None if video.origins is None else torch.where(video.origins < 0, -1, video.origins + 1)
        return EncodedVideo(normed.whole(), F.pad(video.size.flatten(1), (1, 0), value=1.0), origins)

    def _finish(
        self, cls: Tensor, tokens: Tensor, size: Tensor, origins: Tensor | None, mask: Tensor | None = None
    ) -> EncodedVideo:
        # In the output the class token is number 0, so origins move up by one; -1 still means dropped.
        if origins is not None:
            origins = torch.where(origins < 0, -1, origins + 1)
        if mask is not None:
            mask = F.pad(mask, (1, 0), value=True)
        tokens = without_padding(self.norm(torch.cat([cls, tokens], dim=1)), mask)
        return EncodedVideo(tokens, F.pad(size, (1, 0), value=1.0), origins, mask)

    def capped(self, num_frames: int, num_patches: int) -> list[str]:
        """Where a video of this size cannot hold the schedule, one line per axis; empty if it fits."""
        tokens = num_tokens_in_blocks(self.before_blocks, num_frames, num_patches)
        held_by = {"frames": (num_frames, 1), "patches": (num_patches, 0), "tokens": (tokens, 0)}
        lines = []
        for axis, schedule in self.schedules.items():
            held = held_schedule(schedule, *held_by[axis])
            if held != schedule:
                lines.append(f"{axis} to leave per block {schedule}, but {held_by[axis][0]} {axis} hold only {held}")
        return lines

    @torch.no_grad()
    def fold_for_inference(self, dtype: torch.dtype | None = None) -> "VideoEncoder":
        """Prepare for inference only, on the current device, in place; returns itself.

        `temporal_attn.proj` and `temporal_fc` become one linear layer for good. On a CPU the weights are packed to
        compute in `dtype`, by default their own. Under autocast, pass its dtype. Outputs stay equal to 1e-5 in
        float32. The folded encoder can no longer be trained, and can neither load nor make checkpoints.
        """
        dtype = dtype or self.cls_token.dtype
        for block in self.blocks:
            assert isinstance(block, DividedBlock | JointBlock)
            block.fold_for_inference(dtype)
        return self
