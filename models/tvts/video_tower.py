"""TVTSv2's video tower: CLIP's image tower with attention over time, for clips with one class token.

Zeng et al., 2023. Parameter names are the published files'. Shapes: B batch, T frames, C = 3 channels, H W pixels,
L patches a frame, D width, E width of the shared space.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from configs.model import WORKING_MEMORY, TimeTable
from configs.schedule import held_schedule
from models.parts.aggregation import AggregationStep
from models.parts.chunks import Assembled, Chunks, chunks_within, residual_dtype, run_step, spans
from models.parts.clip.blocks import NORM_EPS
from models.parts.clip.image_tower import cut_patches, embed_patches, resize_positions
from models.parts.clip.sizes import ImageTowerSizes
from models.parts.kept_grid import KeptGrid
from models.parts.packed import PackedLinear, can_pack
from models.parts.pixels import normalise_pixels
from models.parts.ragged import without_padding
from models.parts.run_length import KeptPatches, RunLength, flat_indices
from models.parts.time_table import stretch_times
from models.tvts.aggregation import ClipSchedules
from models.tvts.blocks import ClipState, EncodedClip, TvtsBlock
from models.tvts.initialisation import initialise_blocks
from models.tvts.long_clip import LongClip, class_token, recompute_block, run_block

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Blocks(nn.Module):
    """The stack, under CLIP's name `resblocks`."""

    def __init__(self, image: ImageTowerSizes, schedules: ClipSchedules) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            TvtsBlock(
                image.width,
                image.heads,
                image.activation,
                merge_frames=schedules.aggregator("time", index),
                merge_patches=schedules.aggregator("space", index),
                proportional_attention=schedules.proportional_attention,
            )
            for index in range(image.depth)
        )


class VideoTower(nn.Module):
    """Encode clips (B, T, 3, H, W), normalised, of any number of frames and any size that patches tile.

    Clips of at most `num_frames` frames take the first places of the temporal embedding; longer ones have it stretched.
    Images of another size have the places of their patches resized (nearest).

    Args:
        image: sizes of the image tower whose weights it starts from.
        num_frames: places of the temporal embedding.
        raw_patches: whether `sequence` leaves the last norm and the class token away, as H/14 does.
        schedules: which frames and patches merge, and how many in each block.
        pixel_mean, pixel_std: of uint8 clips, on a scale from 0 to 1; by default ImageNet's, as published.
        working_memory: GiB that the steps of a block may hold of one clip; longer clips are encoded in chunks.
        time_table: how the temporal embedding is stretched to longer clips.
        motion: whether each patch also sees, linearly, its difference to the next frame (ours; 0 in the last frame).
    """

    def __init__(
        self,
        image: ImageTowerSizes,
        num_frames: int,
        raw_patches: bool,
        schedules: ClipSchedules | None = None,
        pixel_mean: tuple[float, float, float] = IMAGENET_MEAN,
        pixel_std: tuple[float, float, float] = IMAGENET_STD,
        working_memory: float = WORKING_MEMORY,
        motion: bool = False,
        time_table: TimeTable = "nearest",
    ) -> None:
        super().__init__()
        self.image, self.raw_patches = image, raw_patches
        self.pixel_mean, self.pixel_std = pixel_mean, pixel_std
        self.working_memory, self.time_table = working_memory, time_table
        self.schedules = schedules or ClipSchedules.none(image.depth)
        self.before_blocks = RunLength.of(self.schedules.settings, image.patch_size, pixel_mean, pixel_std)
        scale = image.width**-0.5

        self.conv1: nn.Module = nn.Conv2d(3, image.width, image.patch_size, image.patch_size, bias=False)
        self.conv1_motion: nn.Conv2d | None = None
        if motion:
            self.conv1_motion = nn.Conv2d(3, image.width, image.patch_size, image.patch_size, bias=False)
            with torch.no_grad():  # neighbouring frames differ by about a third of what pixels vary by
                self.conv1_motion.weight.mul_(3)

        self.class_embedding = nn.Parameter(torch.empty(image.width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + image.grid**2, image.width))
        self.temporal_embedding = nn.Parameter(torch.empty(num_frames, image.width))
        self.ln_pre = nn.LayerNorm(image.width, eps=NORM_EPS)
        self.transformer = Blocks(image, self.schedules)
        self.ln_post = nn.LayerNorm(image.width, eps=NORM_EPS)
        self.proj = nn.Parameter(torch.empty(image.width, image.embed_dim))
        for parameter in (self.class_embedding, self.positional_embedding, self.temporal_embedding, self.proj):
            nn.init.normal_(parameter, std=scale)
        initialise_blocks(self.blocks)
        self.recompute = False

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks, first to last."""
        return self.transformer.resblocks

    def forward(
        self,
        video_BTCHW: Tensor,
        keep_BL: Tensor | None = None,
        return_origins: bool = False,
        steps: list[list[AggregationStep]] | None = None,
        kept: KeptPatches | None = None,
        embedding_only: bool = False,
    ) -> EncodedClip:
        """Encode clips, or images (B, 3, H, W) as clips of one frame; uint8 pixels are normalised first.

        Args:
            keep_BL: positions of the patches that stay, the same in every frame of a clip; None keeps all.
            return_origins: whether to track the token that holds each original cell.
            steps: a list, filled with one list per block of what merges; implies `return_origins`.
            kept: from `kept_patches`, by default found here; a compiled tower has to be given them.
            embedding_only: whether the last block may leave out what only patches need, a twentieth of the work;
                neither with origins nor with `steps`.
        """
        assert not (embedding_only and (return_origins or steps is not None)), "these are of all tokens"
        if video_BTCHW.ndim == 4:
            video_BTCHW = video_BTCHW.unsqueeze(1)
        kept = self.kept_patches(video_BTCHW) if kept is None else kept
        chunks = self._chunks(video_BTCHW, keep_BL)
        if kept is not None and (chunks is not None or keep_BL is not None):
            raise ValueError(
                "aggregation.reducer: run_length goes neither with hidden patches nor with clips in chunks; set "
                "model.mask_ratio=0, raise video.working_memory, or take another reducer"
            )
        if chunks is not None:
            return self._encode_in_chunks(video_BTCHW, keep_BL, chunks, return_origins, steps, embedding_only)
        if video_BTCHW.dtype == torch.uint8:
            video_BTCHW = normalise_pixels(video_BTCHW, self.pixel_mean, self.pixel_std, self.proj.dtype)

        # Each token starts with one cell, its own.
        tokens, num_frames = self._embed(video_BTCHW, keep_BL), video_BTCHW.shape[1]
        batch, num_patches = len(tokens), (tokens.shape[1] - 1) // num_frames
        size = tokens.new_ones(batch, num_frames, num_patches, dtype=torch.float32)
        origins = None
        if return_origins or steps is not None:
            cells = torch.arange(num_frames * num_patches, device=tokens.device).view(num_frames, num_patches)
            origins = cells.expand(batch, -1, -1)

        if kept is not None:
            return self._encode_kept(tokens, kept, return_origins, steps, embedding_only)
        state = self._through_blocks(ClipState(tokens, size, origins), steps, embedding_only)

        # The class token is number 0 in the output, so origins move up by one; -1 still means dropped.
        origins = None if state.origins is None else torch.where(state.origins < 0, -1, state.origins + 1)
        embedding = self.ln_post(state.tokens[:, 0]) @ self.proj
        return EncodedClip(embedding, state.tokens, state.size, origins)

    def kept_patches(self, video_BTCHW: Tensor) -> KeptPatches | None:
        """Which patches of clips stay, by their uint8 or normalised pixels; None unless the reducer looks at these."""
        if self.before_blocks is None:
            return None
        clips = video_BTCHW.unsqueeze(1) if video_BTCHW.ndim == 4 else video_BTCHW
        return self.before_blocks.plan(clips, few_lengths=self._compiled_call_impl is not None)

    def _encode_kept(
        self,
        tokens: Tensor,
        kept: KeptPatches,
        return_origins: bool,
        steps: list[list[AggregationStep]] | None,
        embedding_only: bool,
    ) -> EncodedClip:
        """The rest of `forward` for the patches that stay, of all tokens (B, 1 + T L, D)."""
        assert self.before_blocks is not None
        weighs, cells = self.before_blocks.weigh_lengths, flat_indices(*kept.origins.shape[1:], device=tokens.device)
        grid = KeptGrid.of(kept, weighs)
        row = torch.cat([tokens[:, :1], kept.select(tokens[:, 1:])], dim=1)
        state = self._through_blocks(ClipState(row, grid.size, None, grid), steps, embedding_only)
        if steps is not None:
            steps[0].append(AggregationStep("joint", tokens[:, 1:], kept.as_plan(cells), kept.origins))

        mask = None if kept.mask is None or embedding_only else F.pad(kept.mask, (1, 0), value=True)
        origins = kept.origins + 1 if return_origins or steps is not None else None
        embedding = self.ln_post(state.tokens[:, 0]) @ self.proj
        return EncodedClip(embedding, without_padding(state.tokens, mask), kept.sizes(weighs), origins, mask)

    def sequence(self, encoded: EncodedClip) -> Tensor:
        """What the sorting head reads, (B, N, E): all tokens of a clip, or only its patches if they stay raw."""
        return self.project(encoded.tokens[:, 1:] if self.raw_patches else encoded.tokens)

    def project(self, patches: Tensor) -> Tensor:
        """Patch tokens (..., D) in the shared space (..., E), through the last norm unless they stay raw."""
        return (patches if self.raw_patches else self.ln_post(patches)) @ self.proj

    @torch.no_grad()
    def fold_for_inference(self, dtype: torch.dtype | None = None) -> "VideoTower":
        """Prepare for inference only, on the current device, in place; returns itself.

        On a CPU the weights are packed to compute in `dtype`, by default their own. Outputs stay equal to 1e-5 in
        float32. The folded tower can no longer be trained, and can neither load nor make checkpoints.
        """
        for index, block in enumerate(self.blocks):
            assert isinstance(block, TvtsBlock)
            block.fold_for_inference(dtype or self.proj.dtype, class_alone=index == len(self.blocks) - 1)
        if isinstance(self.conv1, nn.Conv2d) and can_pack(self.conv1.weight):
            kernel = self.conv1.weight.flatten(1).to(dtype or self.proj.dtype)
            self.conv1 = PackedLinear(kernel, kernel.new_zeros(len(kernel)))
        return self

    def capped(self, num_frames: int, num_patches: int) -> list[str]:
        """Where a clip of this size cannot hold the schedule, one line per axis; empty if it fits."""
        axes = (("frames", self.schedules.frames, num_frames, 1), ("patches", self.schedules.patches, num_patches, 0))
        lines = []
        for axis, schedule, count, protected in axes:
            held = held_schedule(schedule, count, protected)
            if held != schedule:
                lines.append(f"{axis} to leave per block {schedule}, but {count} {axis} hold only {held}")
        return lines

    def _embed(self, video_BTCHW: Tensor, keep_BL: Tensor | None) -> Tensor:
        """Tokens (B, 1 + T L, D) for the first block; projects only the patches that stay."""
        batch, num_frames, _, height, width = video_BTCHW.shape
        patch_size = self.image.patch_size
        position = resize_positions(
            self.positional_embedding, (height // patch_size, width // patch_size), resize="nearest"
        )

        patches = self._project_patches(video_BTCHW, keep_BL)

        # Each patch adds its position, the same in all frames, and its frame's time, the same for all patches.
        patches = patches + self._place(position, keep_BL) + self._time(num_frames)[:, None]
        cls = (self.class_embedding + position[0]).expand(batch, 1, -1)
        return self.ln_pre(torch.cat([cls, patches.flatten(1, 2)], dim=1))

    def _time(self, num_frames: int) -> Tensor:
        """The temporal embedding (T, D) for clips of this length."""
        if num_frames <= len(self.temporal_embedding):
            return self.temporal_embedding[:num_frames]
        return stretch_times(self.temporal_embedding[None], num_frames, self.time_table)[0]

    def _through_blocks(
        self, state: ClipState, steps: list[list[AggregationStep]] | None, embedding_only: bool
    ) -> ClipState:
        for index, block in enumerate(self.blocks):
            class_only = embedding_only and index == len(self.blocks) - 1
            if steps is not None:
                steps.append([])
                state = block(state, steps[-1])
            elif self.recompute and self.training:
                state = checkpoint(block, state, None, class_only, use_reentrant=False)
            else:
                state = block(state, class_only=class_only)
        return state

    def _chunks(self, video_BTCHW: Tensor, keep_BL: Tensor | None) -> Chunks | None:
        """How to divide a long clip, so that each step fits into the working memory; None where the whole does."""
        num_frames, _, height, width = video_BTCHW.shape[1:]
        grid = (height // self.image.patch_size) * (width // self.image.patch_size)
        num_patches = grid if keep_BL is None else keep_BL.shape[1]
        return chunks_within(self.working_memory, num_frames, num_patches, self.image.width)

    @torch.compiler.disable
    def _encode_in_chunks(
        self,
        video_BTCHW: Tensor,
        keep_BL: Tensor | None,
        chunks: Chunks,
        return_origins: bool,
        steps: list[list[AggregationStep]] | None,
        embedding_only: bool,
    ) -> EncodedClip:
        """Like `forward`, to 1e-5. Under autocast, tokens stay in its dtype between blocks."""
        clip = self._embed_in_chunks(video_BTCHW, keep_BL, chunks, return_origins or steps is not None)
        for index, block in enumerate(self.blocks):
            assert isinstance(block, TvtsBlock)
            if embedding_only and index == len(self.blocks) - 1:
                cls = class_token(block, clip, chunks)
                return EncodedClip(self.ln_post(cls[:, 0]) @ self.proj, cls, clip.size, None)
            if steps is not None:
                steps.append([])
            if self.recompute and self.training:
                clip = recompute_block(block, clip, chunks)
            else:
                run_block(block, clip, chunks, None if steps is None else steps[-1])

        # The class token is number 0 in the output, so origins move up by one; -1 still means dropped.
        origins = None if clip.origins is None else torch.where(clip.origins < 0, -1, clip.origins + 1)
        tokens = torch.cat([clip.cls, clip.patches.flatten(1, 2)], dim=1)
        return EncodedClip(self.ln_post(tokens[:, 0]) @ self.proj, tokens, clip.size, origins)

    def _embed_in_chunks(
        self, video_BTCHW: Tensor, keep_BL: Tensor | None, chunks: Chunks, return_origins: bool
    ) -> LongClip:
        batch, num_frames, _, height, width = video_BTCHW.shape
        patch_size, dtype = self.image.patch_size, residual_dtype(self.proj)
        grid = (height // patch_size, width // patch_size)
        position, time = resize_positions(self.positional_embedding, grid, resize="nearest"), self._time(num_frames)

        place = self._place(position, keep_BL)

        def step(pixels: Tensor, following: Tensor, time: Tensor) -> Tensor:
            if pixels.dtype == torch.uint8:
                pixels, following = (
                    normalise_pixels(part, self.pixel_mean, self.pixel_std, self.proj.dtype)
                    for part in (pixels, following)
                )
            return self.ln_pre(self._project_patches(pixels, keep_BL, following) + place + time[:, None]).to(dtype)

        embedded = Assembled(1, num_frames)
        for frames in spans(num_frames, chunks.frames):
            following = video_BTCHW[:, frames.stop : frames.stop + 1]
            embedded.put(frames, run_step(step, video_BTCHW[:, frames], following, time[frames]))

        num_patches = place.shape[-2]
        cells = torch.arange(num_frames * num_patches, device=position.device).view(num_frames, num_patches)
        return LongClip(
            cls=self.ln_pre((self.class_embedding + position[0]).expand(batch, 1, -1)).to(dtype),
            patches=embedded.whole(),
            size=position.new_ones((batch, num_frames, num_patches), dtype=torch.float32),
            origins=cells.expand(batch, -1, -1) if return_origins else None,
        )

    @staticmethod
    def _place(position: Tensor, keep_BL: Tensor | None) -> Tensor:
        """The position embedding of the patches, (L, D), or of those that stay in each clip, (B, 1, L, D)."""
        if keep_BL is None:
            return position[1:]
        # Not `position[1:][keep_BL]`, whose gradient adds up the clips' shared rows in no fixed order.
        return position[1:].index_select(0, keep_BL.flatten()).unflatten(0, keep_BL.shape).unsqueeze(1)

    def _project_patches(self, video_BTCHW: Tensor, keep_BL: Tensor | None, following: Tensor | None = None) -> Tensor:
        """Patches (B, T, L, D) without embeddings; `following` is the frame after the last one, if there is any."""
        if isinstance(self.conv1, nn.Conv2d):
            patches = embed_patches(video_BTCHW, self.conv1.weight, keep_BL)
        else:  # packed for inference
            patches = self.conv1(cut_patches(video_BTCHW, self.image.patch_size, keep_BL))
        if self.conv1_motion is None:
            return patches

        later = video_BTCHW[:, 1:] if following is None else torch.cat([video_BTCHW[:, 1:], following], dim=1)
        moved = later - video_BTCHW[:, : later.shape[1]]
        # Nothing follows the last frame of a clip.
        moved = F.pad(moved, (0, 0) * 3 + (0, video_BTCHW.shape[1] - moved.shape[1]))
        return patches + embed_patches(moved, self.conv1_motion.weight, keep_BL)
