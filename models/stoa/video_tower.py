"""CLIP's image tower over the frames of a clip, whose last blocks see all frames together.

Shapes: B clips, T frames, L patches a frame, O objects a frame, N = 1 + L tokens a frame, D width, E shared width.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from configs.frame_merging import GroupStep
from models.parts.aggregation import AggregationStep
from models.parts.clip.blocks import ClipBlock
from models.parts.clip.image_tower import ImageTower
from models.parts.features import EncodedVideo
from models.parts.frame_merging import Groups
from models.stoa.blocks import attend, blocks_of, read, seen_of
from models.stoa.grouped import Beside, put_back, through_block
from models.stoa.objects import ClipObjects, ObjectEncoder
from models.stoa.sizes import StoaSizes


class TowerOutput(NamedTuple):
    """What the video tower gives.

    Attributes:
        frames: (B, T, E), the class token of each frame.
        tap: (B, T, 1 + L, D), detached input of the first joint block.
        objects: (B, T, O, D), object tokens, without their frames' embeddings; None without objects.
    """

    frames: Tensor
    tap: Tensor
    objects: Tensor | None


class VideoTower(ImageTower):
    """Blocks within each frame, then blocks over all tokens of the clip; object tokens on the way.

    Parameter names are CLIP's. There is no embedding of time here: the joint blocks see a set of frames.
    """

    def __init__(self, sizes: StoaSizes) -> None:
        super().__init__(sizes.image_tower)
        self.joint_depth, self.objects = sizes.joint_depth, sizes.objects
        self.object_blocks, self.group_steps = sizes.object_blocks, sizes.group_steps
        if sizes.objects != "none":
            self.object_encoder = ObjectEncoder(sizes.vision_width, sizes.num_frames, sizes.objects_per_frame)

    def encode_clips(self, frames_BTCHW: Tensor, objects: ClipObjects | None) -> TowerOutput:
        """Encode normalised frames (B, T, 3, H, W); a model with objects needs those of the clips."""
        tokens = self._embed_clips(frames_BTCHW)
        schedule = self.group_steps(tokens.shape[1], tokens.shape[2] - 1)
        if schedule is not None:
            groups, tap, object_tokens = self._through_groups(tokens, schedule, objects, frames_BTCHW.shape[-2:])
            return TowerOutput(self.ln_post(groups.cls.flatten(1, 2)) @ self.proj, tap, object_tokens)

        blocks = blocks_of(self.transformer)
        num_apart = len(blocks) - self.joint_depth
        tap, object_tokens = tokens, None

        for index, block in enumerate(blocks):
            if index == num_apart:
                tap = tokens.detach()
            if index in self.object_blocks and self.objects != "none":
                assert objects is not None, "a model with objects encodes clips with their objects"
                object_tokens = self._encode_objects(tokens[:, :, 1:], objects, frames_BTCHW.shape[-2:])

            mask, beside = None, tokens.new_zeros(*tokens.shape[:2], 0, tokens.shape[-1])
            if index in self.object_blocks and self.objects == "attention":
                assert objects is not None and object_tokens is not None
                beside = object_tokens.to(tokens.dtype)
                mask = F.pad(~objects.padding, (tokens.shape[2], 0), value=True)

            # Of the last block the class tokens alone are read.
            step = _within_frames if index < num_apart else _across_frames
            if index == len(blocks) - 1:
                step = _class_tokens_across_frames
            tokens = self._run(step, block, tokens, beside, mask)

        return TowerOutput(self.ln_post(tokens[:, :, 0]) @ self.proj, tap, object_tokens)

    def trace_clips(self, frames_BTCHW: Tensor, steps: list[list[AggregationStep]] | None = None) -> EncodedVideo:
        """All tokens in the shared space, class tokens first, and where each patch went; fills `steps`, a list.

        Objects are not read, so they must not stand beside frames.
        """
        tokens = self._embed_clips(frames_BTCHW)
        schedule = self.group_steps(tokens.shape[1], tokens.shape[2] - 1)
        assert schedule is not None and self.objects != "attention" and not self.training
        steps = [] if steps is None else steps
        groups, _, _ = self._through_groups(tokens, schedule, None, frames_BTCHW.shape[-2:], steps)

        assert groups.origins is not None
        num_class = tokens.shape[1]
        left = torch.cat([groups.cls, groups.patches], dim=2).squeeze(1)
        size = F.pad(groups.size.squeeze(1), (num_class, 0), value=1.0)
        return EncodedVideo(self.ln_post(left) @ self.proj, size, groups.origins + num_class)

    def _embed_clips(self, frames_BTCHW: Tensor) -> Tensor:
        """Tokens (B, T, 1 + L, D) of all frames."""
        return self.embed(frames_BTCHW.flatten(0, 1)).unflatten(0, frames_BTCHW.shape[:2])

    def _through_groups(
        self,
        tokens_BTND: Tensor,
        schedule: tuple[GroupStep, ...],
        objects: ClipObjects | None,
        pixels: Sequence[int],
        steps: list[list[AggregationStep]] | None = None,
    ) -> tuple[Groups, Tensor, Tensor | None]:
        """All blocks, merging as the schedule says; the tap and object tokens are as in `TowerOutput`.

        Who reads patches in their places, the tap and RoIAlign, gets for each the token that holds it. With `steps` all
        tokens leave the last block, and no objects are read.
        """
        blocks = blocks_of(self.transformer)
        groups, tap, object_tokens = Groups.of_frames(tokens_BTND, return_origins=True), tokens_BTND, None

        for index, (block, step) in enumerate(zip(blocks, schedule, strict=True)):
            if index == len(blocks) - self.joint_depth:
                tap = put_back(groups).detach()

            beside = None
            if index in self.object_blocks and self.objects != "none" and steps is None:
                assert objects is not None, "a model with objects encodes clips with their objects"
                object_tokens = self._encode_objects(put_back(groups)[:, :, 1:], objects, pixels)
                if self.objects == "attention":
                    beside = Beside.of_groups(object_tokens, ~objects.padding, step.groups)

            # Of the last block the class tokens alone are read.
            if steps is not None:
                steps.append([])
                groups = through_block(block, step, groups, beside, True, steps[-1])
                continue
            arguments = (block, step, groups, beside, index < len(blocks) - 1)
            recomputes = self.transformer.recompute and self.training
            groups = (
                checkpoint(through_block, *arguments, use_reentrant=False) if recomputes else through_block(*arguments)
            )
        return groups, tap, object_tokens

    def _encode_objects(self, patches_BTLD: Tensor, objects: ClipObjects, pixels: Sequence[int]) -> Tensor:
        height, width = pixels
        patch_size = self.sizes.patch_size
        return self.object_encoder(patches_BTLD, objects.boxes, (height // patch_size, width // patch_size), patch_size)

    def _run(self, step: "Step", block: ClipBlock, tokens: Tensor, beside: Tensor, mask: Tensor | None) -> Tensor:
        """One block, whose activations are computed again for the gradient where the tower is set to that."""
        if self.transformer.recompute and self.training:
            return checkpoint(step, block, tokens, beside, mask, use_reentrant=False)
        return step(block, tokens, beside, mask)


Step = Callable[[ClipBlock, Tensor, Tensor, Tensor | None], Tensor]
"""A block over tokens (B, T, N, D); object tokens (B, T, O, D) beside them are seen where `mask` (B, T, N + O) says."""


def _within_frames(block: ClipBlock, tokens: Tensor, beside: Tensor, mask: Tensor | None) -> Tensor:
    together = torch.cat([tokens, beside], dim=2)
    key_mask = None if mask is None else mask.flatten(0, 1)[:, None, None]
    attended = attend(block, together.flatten(0, 1), key_mask).unflatten(0, together.shape[:2])
    return attended[:, :, : tokens.shape[2]]


def _across_frames(block: ClipBlock, tokens: Tensor, beside: Tensor, mask: Tensor | None) -> Tensor:
    together = torch.cat([tokens, beside], dim=2)
    key_mask = None if mask is None else mask.flatten(1, 2)[:, None, None]
    attended = attend(block, together.flatten(1, 2), key_mask).unflatten(1, together.shape[1:3])
    return attended[:, :, : tokens.shape[2]]


def _class_tokens_across_frames(block: ClipBlock, tokens: Tensor, beside: Tensor, mask: Tensor | None) -> Tensor:
    together = torch.cat([tokens, beside], dim=2).flatten(1, 2)
    key_mask = None if mask is None else mask.flatten(1, 2)[:, None, None]
    return read(block, tokens[:, :, 0], seen_of(block, together), key_mask).unsqueeze(2)
