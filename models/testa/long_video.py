"""The divided block for videos whose steps do not fit into memory at once: the same block, a chunk at a time.

Attention over time takes a few patches of all frames, attention within frames and the MLP a few frames; matching and
merging see the whole video. Without gradients, residuals are added in place. Equal to `DividedBlock.forward` to 1e-5.
Shapes: B batch, T frames, L patches a frame, D width, N tokens with the class token.
"""

from dataclasses import dataclass

import torch
from einops import repeat
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.parts.aggregation import AggregationStep, MergePlan, follow, merge, note_step
from models.parts.attention import Attended
from models.parts.chunks import (
    Assembled,
    Chunks,
    add_residual,
    joined,
    merge_and_transform,
    residual_scale,
    run_step,
    spans,
)
from models.parts.precision import at_least_float32
from models.testa.blocks import BlockState, DividedBlock, by_frame


@dataclass
class LongVideo:
    """A video between two blocks.

    Blocks replace its fields as soon as they can, so that nobody holds on to what is no longer needed.

    Attributes:
        cls: (B, 1, D) class token.
        tokens: (B, T, L, D); without gradients, blocks write into it.
        size: (B, T, L) how many original cells a token holds.
        origins: (B, T0, L0) the flat index of the token that holds each original cell; None if not tracked.
    """

    cls: Tensor
    tokens: Tensor
    size: Tensor
    origins: Tensor | None


def run_block(
    block: DividedBlock, video: LongVideo, chunks: Chunks, steps: list[AggregationStep] | None = None
) -> None:
    """Take a video through a block, in place."""
    _attend_over_time(block, video, chunks, steps)
    patch_plan = _attend_within_frames(block, video, chunks, steps)
    _merge_and_transform(block, video, chunks, patch_plan)


def recompute_block(block: DividedBlock, video: LongVideo, chunks: Chunks) -> LongVideo:
    """The same in training, keeping only what goes into the block for the backward pass."""

    def run(cls: Tensor, tokens: Tensor, size: Tensor, origins: Tensor | None) -> BlockState:
        inside = LongVideo(cls, tokens, size, origins)
        run_block(block, inside, chunks)
        return inside.cls, inside.tokens, inside.size, inside.origins

    state = checkpoint(run, video.cls, video.tokens, video.size, video.origins, use_reentrant=False)
    return LongVideo(*state)


def _attend_over_time(
    block: DividedBlock, video: LongVideo, chunks: Chunks, steps: list[AggregationStep] | None
) -> None:
    """Attention over time a few patches at a time, then merging of frames."""
    num_frames, num_patches = video.tokens.shape[1:3]
    scale = residual_scale(block.drop_path, video.tokens)
    bias = video.size.log().transpose(1, 2) if block.proportional_attention else None

    # Whether two layers are folded into one depends on the size of the video, not of the chunk.
    fold = block.folds(num_frames, num_patches)

    def step(tokens: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        attended = block.temporal_attn(block.temporal_norm1(tokens), bias, block.merge_frames.needs)
        update = block.temporal_update(attended.context, fold)
        return add_residual(tokens, update, scale), attended.key, attended.importance, attended.sharpness

    # In place: a patch only sees the other frames of its own place.
    updated = Assembled(2, num_patches, target=video.tokens)
    keys, importances, sharpnesses = [], [], []
    for places in spans(num_patches, chunks.patches):
        part_bias = None if bias is None else bias[:, places]
        part, key, importance, sharp = run_step(step, video.tokens[:, :, places], part_bias)
        updated.put(places, part)
        keys.append(key)
        importances.append(importance)
        sharpnesses.append(sharp)
    video.tokens = updated.whole()

    # Merge or drop whole frames: all patches of a frame follow one plan.
    attended = Attended(video.tokens, joined(keys), joined(importances), joined(sharpnesses))
    plan = block.merge_frames.plan(attended, num_frames)
    if plan is not None:
        video.tokens, video.size = merge(video.tokens, video.size, plan)
        if video.origins is not None:
            video.origins = follow(video.origins, plan, num_frames, num_patches)
        assert attended.key is not None
        note_step(steps, block.merge_frames, attended.key, plan, video.origins)


def _attend_within_frames(
    block: DividedBlock, video: LongVideo, chunks: Chunks, steps: list[AggregationStep] | None
) -> MergePlan | None:
    """Attention within frames a few frames at a time; returns the plan for the patches, which is not carried out yet.

    Saliency is relative to the whole video, so the plan is made once attention has seen all frames.
    """
    num_frames, num_patches = video.tokens.shape[1:3]
    scale = residual_scale(block.drop_path, video.tokens)
    bias = F.pad(video.size.log(), (1, 0)) if block.proportional_attention else None

    def step(cls: Tensor, tokens: Tensor, bias: Tensor | None) -> tuple[Tensor | None, ...]:
        frames = torch.cat([repeat(cls, "B 1 D -> B T 1 D", T=tokens.shape[1]), tokens], dim=2)
        key_bias = None if bias is None else bias.flatten(0, 1).unsqueeze(1)
        attended = block.attn(block.norm1(frames).flatten(0, 1).unsqueeze(2), key_bias, block.merge_patches.needs, 1)
        update = block.attn.proj(attended.context).squeeze(2).unflatten(0, (-1, tokens.shape[1]))

        read = by_frame(attended.of_tokens(1), tokens.shape[1])
        cls_update = at_least_float32(update[:, :, :1]).sum(dim=1)
        tokens = add_residual(tokens, update[:, :, 1:], scale)
        return tokens, cls_update, read.key, read.importance, read.sharpness

    updated = Assembled(1, num_frames, target=video.tokens)
    cls_updates: list[Tensor] = []
    keys, importances, sharpnesses = [], [], []
    for frames in spans(num_frames, chunks.frames):
        part_bias = None if bias is None else bias[:, frames]
        part, cls_update, key, importance, sharp = run_step(step, video.cls, video.tokens[:, frames], part_bias)
        assert part is not None and cls_update is not None
        updated.put(frames, part)
        cls_updates.append(cls_update)
        keys.append(key)
        importances.append(importance)
        sharpnesses.append(sharp)

    # The one class token takes the mean of its updates in all frames.
    video.tokens = updated.whole()
    mean_update = torch.stack(cls_updates).sum(dim=0) / num_frames
    video.cls = add_residual(video.cls, mean_update, _of_class_token(scale))

    attended = Attended(video.tokens, joined(keys), joined(importances), joined(sharpnesses))
    plan = block.merge_patches.plan(attended, num_patches, video.tokens.detach())
    if plan is not None:
        if video.origins is not None:
            video.origins = follow(video.origins, plan, num_patches, 1)
        compared = video.tokens if attended.key is None else attended.key
        note_step(steps, block.merge_patches, compared, plan, video.origins)
    return plan


def _merge_and_transform(block: DividedBlock, video: LongVideo, chunks: Chunks, plan: MergePlan | None) -> None:
    """Merging of patches and the MLP, a few frames at a time."""
    scale = residual_scale(block.drop_path, video.tokens)

    def transform(tokens: Tensor) -> Tensor:
        return add_residual(tokens, block.mlp(block.norm2(tokens)), scale)

    video.tokens, video.size = merge_and_transform(video.tokens, video.size, plan, chunks.frames, transform)
    video.cls = add_residual(video.cls, block.mlp(block.norm2(video.cls)), _of_class_token(scale))


def _of_class_token(scale: Tensor | None) -> Tensor | None:
    return None if scale is None else scale.squeeze(1)
