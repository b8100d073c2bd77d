"""CLIP's image tower over the frames of a clip, whose last blocks see all frames together.

Shapes: B clips, T frames, L patches a frame, O objects a frame, N = 1 + L tokens a frame, D width, E shared width.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.parts.clip.blocks import ClipBlock
from models.parts.clip.image_tower import ImageTower
from models.stoa.blocks import attend, blocks_of, read, seen_of
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
        self.object_blocks = sizes.object_blocks
        if sizes.objects != "none":
            self.object_encoder = ObjectEncoder(sizes.vision_width, sizes.num_frames, sizes.objects_per_frame)

    def encode_clips(self, frames_BTCHW: Tensor, objects: ClipObjects | None) -> TowerOutput:
        """Encode normalised frames (B, T, 3, H, W); a model with objects needs those of the clips."""
        num_frames = frames_BTCHW.shape[1]
        tokens = rearrange(self.embed(frames_BTCHW.flatten(0, 1)), "(B T) N D -> B T N D", T=num_frames)
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
