"""UMT's video encoder (ICCV 2023): a ViT whose tokens attend over space and time at once, reduced as by vid-TLDR.

Parameter names are the published files'. Shapes: B batch, T frames, C = 3 channels, H W pixels, L patches a frame,
D width, N tokens, V visible tokens, F pooled vectors.
"""

from typing import Literal, NamedTuple

import torch
from einops import rearrange
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.umt import UMTConfig, token_schedule
from models.parts.aggregation import AggregationStep, TokenAggregator
from models.parts.packed_rows import PackedRows, through_packed
from models.parts.pixels import normalise_pixels
from models.parts.ragged import mean_token, without_padding
from models.parts.run_length import KeptPatches, RunLength, flat_indices
from models.parts.sinusoid import interpolated_in_time, sinusoid
from models.parts.squares import Quadtree, Squares, plan_patches
from models.umt.blocks import NORM_EPS, JointSpaceTimeBlock, TokenState

INITIAL_STD = 0.02
TEACHER_NORM_EPS = 1e-5
"""Unlike in the encoder's own norms."""


class EncodedVideo(NamedTuple):
    """What the encoder makes of a video.

    Attributes:
        tokens: (B, N, D) those that are left, after the last norm: frame by frame, row by row; after a reduction what
            is left of the even positions before it, then the odd ones.
        size: (B, N) float32, how much of the video each holds.
        origins: (B, T, L) int64, for every original cell the index of the token that holds it, -1: dropped; None
            unless asked for.
        returned: outputs (B, N, D) of the last blocks, earliest first, before the last norm; as many as asked for.
        mask: (B, N) bool, False for padding, which is zero in `tokens` and has size 0; None if all videos have the same
            number of tokens. See `models.parts.ragged`.
    """

    tokens: Tensor
    size: Tensor
    origins: Tensor | None
    returned: list[Tensor]
    mask: Tensor | None = None


class PatchEmbedding(nn.Module):
    """The patches of each frame, each a token."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        kernel = (1, patch_size, patch_size)
        self.proj = nn.Conv3d(3, width, kernel_size=kernel, stride=kernel)

    def forward(self, video_BTCHW: Tensor) -> Tensor:
        """Tokens (B, T, L, D)."""
        # As a matrix product: convolutions of this kind take slower paths on several devices.
        patch = self.proj.kernel_size[-1]
        cells = rearrange(video_BTCHW, "B T C (H P) (W Q) -> B T (H W) (C P Q)", P=patch, Q=patch)
        return F.linear(cells, self.proj.weight.flatten(1), self.proj.bias)


class Trunk(nn.Module):
    """Embedding, blocks, and the last norm (`encoder.` in the published files)."""

    def __init__(self, model: UMTConfig, video: VideoConfig, aggregation: AggregationConfig) -> None:
        super().__init__()
        schedule = token_schedule(model, video, aggregation)
        self.patch_embed = PatchEmbedding(model.patch_size, model.width)

        drop_path = torch.linspace(0, model.drop_path, model.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            JointSpaceTimeBlock(
                model.width,
                model.heads,
                model.mlp_ratio,
                drop_path[index],
                TokenAggregator(
                    aggregation.in_blocks,
                    "joint",
                    schedule[index],
                    after_class_token=False,
                    merge_weight=aggregation.merge_weight,
                ),
            )
            for index in range(model.depth)
        )
        self.norm = nn.LayerNorm(model.width, eps=NORM_EPS)


class DistillationHead(nn.Module):
    """Map the tokens of one block to the teacher's."""

    def __init__(self, width: int, teacher_width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, teacher_width)
        self.norm = nn.LayerNorm(teacher_width, eps=TEACHER_NORM_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (..., D) as the teacher's (..., C)."""
        return self.norm(self.head(tokens))


class VideoEncoder(nn.Module):
    """Encode normalised videos (B, T, 3, H, W) with any number of frames.

    Positions are a fixed sinusoid over the row of all frames' patches. The table has as many frames as the weights were
    trained with (`checkpoint_frames`, by default `video.num_frames`) and is interpolated in time for other numbers. A
    single frame uses the table's first frame.

    Args:
        pool_norm: False for question answering, which pools nothing and whose files have no such norm.
        teacher_layers, teacher_width: how many of the last blocks learn from a teacher of that width in pre-training.
        activation_checkpointing: `recompute` keeps only block inputs for the backward pass.
    """

    position: Tensor

    def __init__(
        self,
        model: UMTConfig,
        video: VideoConfig,
        aggregation: AggregationConfig | None = None,
        *,
        pool_norm: bool = True,
        teacher_layers: int = 0,
        teacher_width: int = 512,
        activation_checkpointing: Literal["none", "recompute"] = "none",
    ) -> None:
        super().__init__()
        aggregation = aggregation or AggregationConfig()
        model.check(video, aggregation)
        if not 0 <= teacher_layers <= model.depth:
            raise ValueError(f"{teacher_layers} blocks cannot learn from a teacher: the encoder has {model.depth}")
        self.pooling, self.patch_size, self.width = model.pooling, model.patch_size, model.width
        self.image_size, self.num_patches = video.image_size, (video.image_size // model.patch_size) ** 2
        self.pixel_mean, self.pixel_std = video.pixel_mean, video.pixel_std
        self.recompute = activation_checkpointing == "recompute"
        self.before_blocks: RunLength | Quadtree | None = RunLength.of(
            aggregation, model.patch_size, video.pixel_mean, video.pixel_std
        ) or Quadtree.of(aggregation, weighs=True)

        self.encoder = Trunk(model, video, aggregation)
        self.pool_norm = nn.LayerNorm(model.width, eps=NORM_EPS) if pool_norm else None
        if teacher_layers:
            heads = (DistillationHead(model.width, teacher_width) for _ in range(teacher_layers))
            self.clip_decoder = nn.ModuleList(heads)
        self.apply(_initialise)

        # The table is computed, not learned, so no file holds it.
        frames = model.checkpoint_frames or video.num_frames
        table = sinusoid(frames * self.num_patches, model.width).unflatten(0, (frames, self.num_patches))
        self.register_buffer("position", table, persistent=False)

    def forward(
        self,
        video_BTCHW: Tensor,
        keep_BV: Tensor | None = None,
        *,
        return_origins: bool = False,
        num_returned: int = 0,
        steps: list[list[AggregationStep]] | None = None,
        kept: KeptPatches | Squares | None = None,
    ) -> EncodedVideo:
        """Encode normalised videos; see `EncodedVideo`.

        Args:
            keep_BV: indices of the tokens to encode, in pre-training; by default all.
            num_returned: how many of the last blocks' outputs to return in addition.
            steps: an empty list, filled with what each block merged; this needs `return_origins`.
            kept: the patches that stay, from `kept_patches`, by default found here; a compiled encoder has to be given
                them.
        """
        assert steps is None or (return_origins and not self.training), "steps are for looking, and need origins"
        assert keep_BV is None or not return_origins, "origins are of videos that are seen whole"
        kept = self.kept_patches(video_BTCHW) if kept is None else kept
        assert kept is None or keep_BV is None, "no reducer goes with hidden patches"
        whole = self._embed(video_BTCHW, keep_BV, return_origins)
        state = whole if kept is None else self._reduced(whole, kept)

        if kept is not None and kept.counts is not None and steps is None and not num_returned:
            return self._encode_packed(state, kept, kept.counts)

        # The blocks, keeping the outputs that a teacher's features are compared with.
        returned = []
        first_returned = len(self.encoder.blocks) - num_returned
        for index, block in enumerate(self.encoder.blocks):
            if steps is not None:
                steps.append([])
                state = block(state, steps[-1])
            elif self.recompute and self.training:
                state = checkpoint(block, state, use_reentrant=False)
            else:
                state = block(state)
            if index >= first_returned:
                returned.append(state.tokens)

        # Without merging no block tracks sizes: every token holds one cell.
        size = state.size
        if size is None:
            size = state.tokens.new_ones(state.tokens.shape[:2], dtype=torch.float32)
        mask = None if kept is None else kept.mask
        if steps is not None and kept is not None:
            num_frames = video_BTCHW.shape[1]
            order = flat_indices(num_frames, self.num_patches, device=size.device)
            steps[0].insert(0, AggregationStep("joint", whole.tokens, kept.as_plan(order), kept.origins))
        return EncodedVideo(without_padding(self.encoder.norm(state.tokens), mask), size, state.origins, returned, mask)

    @torch.no_grad()
    def kept_patches(self, video_BTCHW: Tensor) -> KeptPatches | Squares | None:
        """Which patches of uint8 or normalised videos stay or merge before the first block; None unless some do."""
        few_lengths = self._compiled_call_impl is not None
        return plan_patches(self.before_blocks, video_BTCHW, self._embedded, self.patch_size, few_lengths)

    def _embedded(self, video_BTCHW: Tensor) -> Tensor:
        """Patches (B, T, L, D) of uint8 or normalised videos, without their places."""
        dtype = self.encoder.norm.weight.dtype
        if video_BTCHW.dtype == torch.uint8:
            video_BTCHW = normalise_pixels(video_BTCHW, self.pixel_mean, self.pixel_std, dtype)
        return self.encoder.patch_embed(video_BTCHW.to(dtype))

    def _encode_packed(self, state: TokenState, kept: KeptPatches | Squares, counts: tuple[int, ...]) -> EncodedVideo:
        """The rest of `forward`, without what would be computed for padding."""
        assert self.before_blocks is not None and state.size is not None
        rows = PackedRows.of(counts, state.tokens.shape[1], state.tokens.device)
        settings = self.before_blocks.weigh_lengths, self.recompute and self.training
        tokens = through_packed(self.encoder.blocks, state.tokens, state.size, rows, *settings)
        return EncodedVideo(
            without_padding(self.encoder.norm(tokens), kept.mask), state.size, state.origins, [], kept.mask
        )

    def _reduced(self, state: TokenState, kept: KeptPatches | Squares) -> TokenState:
        """The tokens before the first block; sizes only where attention has to know them."""
        assert self.before_blocks is not None
        size = kept.sizes(self.before_blocks.weigh_lengths) if self.before_blocks.has_sizes else None
        return TokenState(kept.select(state.tokens), size, None if state.origins is None else kept.origins)

    def pool(
        self, tokens_BND: Tensor, num_frames: int, mask_BN: Tensor | None = None, size_BN: Tensor | None = None
    ) -> Tensor:
        """Normalised means (B, F, D) of the tokens from `forward`: one per frame, or one of all (F = 1).

        If some tokens were left out or merged, the rest no longer belongs to single frames and is pooled together. Then
        only those of the mask count, and by their sizes if the lengths of runs are weighed.
        """
        assert self.pool_norm is not None, "this encoder was built without pooling"
        if self.pooling == "frames" and tokens_BND.shape[1] == num_frames * self.num_patches:
            frames = tokens_BND.unflatten(1, (num_frames, self.num_patches))
            return self.pool_norm(frames.mean(dim=2))
        weighs = isinstance(self.before_blocks, RunLength) and self.before_blocks.weigh_lengths
        return self.pool_norm(mean_token(tokens_BND, mask_BN, size_BN if weighs else None).unsqueeze(1))

    def student(self, encoded: EncodedVideo, num_frames: int, keep_BV: Tensor) -> Tensor:
        """What is compared with the teacher: (K, B, V, C) for the K blocks that were returned, earliest first."""
        assert len(encoded.returned) == len(self.clip_decoder), "ask forward for the blocks that learn"
        position = _rows(self._positions(num_frames).flatten(0, 1).expand(len(keep_BV), -1, -1), keep_BV)
        outputs = [
            head(self.encoder.norm(tokens) + position.to(tokens.dtype))
            for head, tokens in zip(self.clip_decoder, encoded.returned, strict=True)
        ]
        return torch.stack(outputs)

    @torch.no_grad()
    def fold_for_inference(self, dtype: torch.dtype | None = None) -> "VideoEncoder":
        """Prepare for inference only, on the current device, in place; returns itself.

        On a CPU the weights are packed to compute in `dtype`, by default their own. The folded encoder
        can no longer be trained, and can neither load nor make checkpoints.
        """
        for block in self.encoder.blocks:
            assert isinstance(block, JointSpaceTimeBlock)
            block.fold_for_inference(dtype or self.encoder.norm.weight.dtype)
        return self

    def _embed(self, video_BTCHW: Tensor, keep_BV: Tensor | None, return_origins: bool) -> TokenState:
        batch, num_frames, _, height, width = video_BTCHW.shape
        if (height, width) != (self.image_size, self.image_size):
            raise ValueError(
                f"frames of {height} x {width} pixels: positions are made for {self.image_size} x {self.image_size}; "
                "set video.image_size"
            )

        # Drop hidden tokens after positions are added, so that each keeps its own.
        tokens = self.encoder.patch_embed(video_BTCHW)
        tokens = (tokens + self._positions(num_frames).to(tokens.dtype)).flatten(1, 2)
        if keep_BV is not None:
            tokens = _rows(tokens, keep_BV)

        origins = None
        if return_origins:
            cells = torch.arange(num_frames * self.num_patches, device=tokens.device)
            origins = cells.view(num_frames, self.num_patches).expand(batch, -1, -1)
        return TokenState(tokens, None, origins)

    def _positions(self, num_frames: int) -> Tensor:
        """The table (T, L, D) for a video with this many frames."""
        return self.position[:1] if num_frames == 1 else interpolated_in_time(self.position, num_frames)


def _rows(tokens_BND: Tensor, index_BV: Tensor) -> Tensor:
    return tokens_BND.gather(1, index_BV.unsqueeze(-1).expand(-1, -1, tokens_BND.shape[-1]))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv3d):
        trunc_normal_(module.weight, std=INITIAL_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
