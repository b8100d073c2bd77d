"""What a frozen CLIP image tower teaches a video encoder (UMT, ICCV 2023): features of its last blocks, and a mask.

Shapes: B clips, T frames, L patches, V visible patches a frame, E width of the shared space.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from models.parts.clip.blocks import ClipBlock
from models.parts.clip.image_tower import ImageTower


class Teaching(NamedTuple):
    """Attributes.

    features: (num_blocks, B, T, L, E) unit vectors, earliest block first.
    attention: (B, T, L) float32, what the class token of the last block pays to each patch, averaged over heads.
    """

    features: Tensor
    attention: Tensor


@torch.no_grad()
def teach(tower: ImageTower, video_BTCHW: Tensor, num_blocks: int = 6) -> Teaching:
    """Patch tokens after each of the last `num_blocks` blocks, through `ln_post` and the projection.

    Each frame is encoded alone. Nothing is learned: the tower must be in evaluation mode.
    """
    blocks = tower.transformer.resblocks
    if not 1 <= num_blocks <= len(blocks):
        raise ValueError(f"a teacher of {len(blocks)} blocks has no last {num_blocks}")

    # Frames are images to the teacher.
    batch = len(video_BTCHW)
    tokens = tower.embed(video_BTCHW.flatten(0, 1))
    outputs = []
    attention = tokens.new_empty(0)
    for index, block in enumerate(blocks):
        assert isinstance(block, ClipBlock)
        # The mask needs the attention of the last block alone, so no other block's is computed.
        if index == len(blocks) - 1:
            attention = block.attn.received_from_first(block.ln_1(tokens))[:, 1:]

        tokens = block(tokens)
        if index >= len(blocks) - num_blocks:
            outputs.append(F.normalize((tower.ln_post(tokens[:, 1:]) @ tower.proj).float(), dim=-1))

    features = rearrange(torch.stack(outputs), "K (B T) L E -> K B T L E", B=batch)
    return Teaching(features, rearrange(attention, "(B T) L -> B T L", B=batch))


def draw_visible(attention_BTL: Tensor, mask_ratio: float, noise_BTL: Tensor) -> Tensor:
    """Draw the patches that the student sees, for each frame, without replacement, in proportion to attention.

    Args:
        mask_ratio: L - int(L mask_ratio) patches of each frame stay visible.
        noise_BTL: uniform in [0, 1), which decides the draw.

    Returns:
        A mask (B, T, L), True where a patch is hidden.
    """
    num_patches = attention_BTL.shape[-1]
    num_visible = count_visible(num_patches, mask_ratio)
    if not 1 <= num_visible <= num_patches:
        raise ValueError(f"mask_ratio {mask_ratio}: leaves {num_visible} of {num_patches} patches visible")

    # Gumbel noise: the largest log-weights plus noise are draws without replacement. A patch whose attention
    # underflows keeps a small weight, since there might be too few others.
    gumbel = -(-noise_BTL.clamp(1e-20, 1 - 1e-7).log()).log()
    visible = (attention_BTL.float().clamp(min=1e-12).log() + gumbel).topk(num_visible, dim=-1).indices
    return torch.ones_like(attention_BTL, dtype=torch.bool).scatter(-1, visible, False)


def count_visible(num_patches: int, mask_ratio: float) -> int:
    """How many patches of a frame stay visible."""
    return num_patches - int(num_patches * mask_ratio)


def visible_features(features_KBTLE: Tensor, hidden_BTL: Tensor, num_visible: int | None = None) -> Tensor:
    """The features of visible patches, frame by frame, in order of position: (K, B, T V, E)."""
    index = visible_places(hidden_BTL, num_visible)[None, ..., None]
    index = index.expand(len(features_KBTLE), -1, -1, -1, features_KBTLE.shape[-1])
    return features_KBTLE.gather(3, index).flatten(2, 3)


def visible_tokens(hidden_BTL: Tensor, num_visible: int | None = None) -> Tensor:
    """Where the visible patches are in a row of all frames' patches, ascending: (B, T V)."""
    first_of_frame = torch.arange(hidden_BTL.shape[1], device=hidden_BTL.device) * hidden_BTL.shape[2]
    return (visible_places(hidden_BTL, num_visible) + first_of_frame[:, None]).flatten(1)


def visible_places(hidden_BTL: Tensor, num_visible: int | None = None) -> Tensor:
    """Where the visible patches are in their frame, ascending: (B, T, V); each frame has equally many.

    Without `num_visible` the mask is asked for it, for which the host waits for the device.
    """
    if num_visible is None:
        num_visible = int((~hidden_BTL[0, 0]).sum())
    # A stable sort of booleans puts the visible places first and leaves them in order.
    return hidden_BTL.to(torch.uint8).argsort(dim=-1, stable=True)[..., :num_visible]
