"""TVTSv2's block for clips whose steps do not fit into memory at once: the same block, a chunk at a time.

Attention over time takes a few patches of all frames, attention within frames and the MLP a few frames; matching and
merging see the whole clip. Without gradients, residuals are added in place. Equal to `TvtsBlock.forward` to 1e-5.
Shapes: B batch, T frames, L patches a frame, D width.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.parts.aggregation import AggregationStep, MergePlan, follow, merge, note_step
from models.parts.attention import Attended
from models.parts.chunks import Assembled, Chunks, joined, merge_and_transform, run_step, spans
from models.tvts.blocks import TvtsBlock
from models.tvts.class_share import ClassShare


@dataclass
class LongClip:
    """A clip between two blocks, which replace its fields as soon as they can.

    Attributes:
        cls: (B, 1, D) class token.
        patches: (B, T, L, D); without gradients, blocks write into it.
        size: (B, T, L) how many original cells a token holds.
        origins: (B, T0, L0) the flat index of the patch that holds each original cell; None if not tracked.
    """

    cls: Tensor
    patches: Tensor
    size: Tensor
    origins: Tensor | None


def run_block(block: TvtsBlock, clip: LongClip, chunks: Chunks, steps: list[AggregationStep] | None = None) -> None:
    """Take a clip through a block, in place."""
    seen_cls, seen = _look_over_time(block, clip, chunks, steps)
    plan = _attend_within_frames(block, clip, seen_cls, seen, chunks, steps)
    del seen
    _merge_and_transform(block, clip, chunks, plan)


def class_token(block: TvtsBlock, clip: LongClip, chunks: Chunks) -> Tensor:
    """The class token (B, 1, D) after a block, without what only patches need; the clip is used up."""
    seen_cls, seen = _look_over_time(block, clip, chunks, None)

    def step(cls: Tensor, part: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
        share = block.attn.class_share_of_part(block.ln_1(torch.cat([cls, part.flatten(1, 2)], dim=1)), size)
        return share.context, share.log_total

    shares = []
    for frames in spans(clip.patches.shape[1], chunks.frames):
        size = clip.size[:, frames] if block.proportional_attention else None
        shares.append(ClassShare(*run_step(step, seen_cls, seen[:, frames], size)))
    cls = clip.cls + block.attn.class_update(block.ln_1(seen_cls), shares).to(clip.cls.dtype)
    return _transformed(block, cls)


def recompute_block(block: TvtsBlock, clip: LongClip, chunks: Chunks) -> LongClip:
    """The same in training, keeping only what goes into the block for the backward pass."""

    def run(
        cls: Tensor, patches: Tensor, size: Tensor, origins: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        inside = LongClip(cls, patches, size, origins)
        run_block(block, inside, chunks)
        return inside.cls, inside.patches, inside.size, inside.origins

    state = checkpoint(run, clip.cls, clip.patches, clip.size, clip.origins, use_reentrant=False)
    return LongClip(*state)


def _look_over_time(
    block: TvtsBlock, clip: LongClip, chunks: Chunks, steps: list[AggregationStep] | None
) -> tuple[Tensor, Tensor]:
    """Class token and patches with what they see over time added, which attention within frames reads.

    The clip itself keeps its tokens, which are the residual; frames of both merge by one plan.
    """
    num_frames, num_patches = clip.patches.shape[1:3]

    def step(
        cls: Tensor, part: Tensor, size: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        tokens = block.ln_3(torch.cat([cls, part.flatten(1, 2)], dim=1))
        update, share, attended = block.timeattn.attend_part(tokens, num_frames, size, block.merge_frames.needs)
        return (part + update).to(part.dtype), share.context, share.log_total, attended.key, attended.importance

    assembled = Assembled(2, num_patches)
    shares, keys, importances = [], [], []
    for places in spans(num_patches, chunks.patches):
        size = clip.size[:, :, places] if block.proportional_attention else None
        part, context, log_total, key, importance = run_step(step, clip.cls, clip.patches[:, :, places], size)
        assembled.put(places, part)
        shares.append(ClassShare(context, log_total))
        keys.append(key)
        importances.append(importance)

    seen = assembled.whole()
    seen_cls = clip.cls + block.timeattn.class_update(block.ln_3(clip.cls), shares).to(clip.cls.dtype)

    # Merge or drop whole frames: all patches of a frame follow one plan.
    attended = Attended(seen, joined(keys), joined(importances))
    plan = block.merge_frames.plan(attended, num_frames)
    if plan is not None:
        size = clip.size
        seen, _ = merge(seen, size, plan)
        clip.patches, clip.size = merge(clip.patches, size, plan)
        if clip.origins is not None:
            clip.origins = follow(clip.origins, plan, num_frames, num_patches)
        assert attended.key is not None
        note_step(steps, block.merge_frames, attended.key, plan, clip.origins)
    return seen_cls, seen


def _attend_within_frames(
    block: TvtsBlock,
    clip: LongClip,
    seen_cls: Tensor,
    seen: Tensor,
    chunks: Chunks,
    steps: list[AggregationStep] | None,
) -> MergePlan | None:
    """Attention within frames a few frames at a time; returns the plan for the patches, which is not carried out yet.

    Saliency is relative to the whole clip, so the plan is made once attention has seen all frames.
    """
    num_frames, num_patches = clip.patches.shape[1:3]

    def step(cls: Tensor, part: Tensor, residual: Tensor, size: Tensor | None) -> tuple[Tensor | None, ...]:
        tokens = block.ln_1(torch.cat([cls, part.flatten(1, 2)], dim=1))
        update, share, attended = block.attn.attend_part(tokens, part.shape[1], size, block.merge_patches.needs)
        result = (residual + update).to(residual.dtype)
        return result, share.context, share.log_total, attended.key, attended.importance, attended.sharpness

    updated = Assembled(1, num_frames, target=clip.patches)
    shares, keys, importances, sharpnesses = [], [], [], []
    for frames in spans(num_frames, chunks.frames):
        size = clip.size[:, frames] if block.proportional_attention else None
        part, context, log_total, key, importance, sharp = run_step(
            step, seen_cls, seen[:, frames], clip.patches[:, frames], size
        )
        assert part is not None and context is not None and log_total is not None
        updated.put(frames, part)
        shares.append(ClassShare(context, log_total))
        keys.append(key)
        importances.append(importance)
        sharpnesses.append(sharp)

    clip.patches = updated.whole()
    clip.cls = clip.cls + block.attn.class_update(block.ln_1(seen_cls), shares).to(clip.cls.dtype)

    attended = Attended(clip.patches, joined(keys), joined(importances), joined(sharpnesses))
    plan = block.merge_patches.plan(attended, num_patches, clip.patches.detach())
    if plan is not None:
        if clip.origins is not None:
            clip.origins = follow(clip.origins, plan, num_patches, 1)
        compared = clip.patches if attended.key is None else attended.key
        note_step(steps, block.merge_patches, compared, plan, clip.origins)
    return plan


def _merge_and_transform(block: TvtsBlock, clip: LongClip, chunks: Chunks, plan: MergePlan | None) -> None:
    """Merging of patches and the MLP, a few frames at a time."""
    transform = partial(_transformed, block)
    clip.patches, clip.size = merge_and_transform(clip.patches, clip.size, plan, chunks.frames, transform)
    clip.cls = transform(clip.cls)


def _transformed(block: TvtsBlock, tokens: Tensor) -> Tensor:
    return (tokens + block.mlp(block.ln_2(tokens))).to(tokens.dtype)
