"""Multiply-accumulates of the video encoder, and the tokens it leaves, without running it.

The paper's convention: the encoder alone, one video, one multiply-accumulate counted as one, a LayerNorm as five per
element; softmax, GELU, sorting, gathers and sums are not counted. We execute less: `temporal_attn.proj` and
`temporal_fc` are one layer, and class tokens are not matched. Runs on the meta device, in seconds.
"""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from configs.reducers import BEFORE_BLOCKS
from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from configs.squares import products_of_parts, squares_of_share
from models.parts.cost import Cost, check_countable
from models.parts.run_length import num_tokens_in_blocks
from models.parts.squares import Squares
from models.testa.blocks import DividedBlock, JointBlock
from models.testa.video_encoder import VideoEncoder

MACS_PER_NORM_ELEMENT = 5


def count(model: TestaConfig, video: VideoConfig, aggregation: AggregationConfig) -> Cost:
    """The cost of encoding one video of the configured size."""
    with torch.device("meta"):
        encoder = VideoEncoder(model, video, aggregation).eval()
        pixels = torch.empty(1, video.num_frames, 3, video.image_size, video.image_size)
    check_countable(aggregation)

    # The counter counts a multiply-accumulate as two operations.
    norms = {torch.ops.aten.native_layer_norm: lambda *shapes, **_: 2 * MACS_PER_NORM_ELEMENT * _elements(shapes[0])}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=norms) as counter:
        encoded = encoder(pixels, kept=_squares(model, video, aggregation))

    # The paper counts more than runs here: add what we save.
    executed = counter.get_total_flops() / 2
    if aggregation.reducer == "quadtree":
        # Patches are embedded once more: which of them merge is decided before the encoder sees them.
        side = video.image_size // model.patch_size
        executed += pixels.numel() * model.width
        executed += model.width * products_of_parts(video.num_frames, side, side, aggregation.root_level)
    macs = executed + _class_token_matches(encoder, video.num_frames)
    macs += _saved_by_folding(encoder, video.num_frames, encoded.tokens.shape[1] - 1)

    # What is left after the last block.
    frames = patches = None
    tokens = encoded.tokens.shape[1]
    if aggregation.reducer in BEFORE_BLOCKS:
        pass  # what is left is no rectangle
    elif model.attention == "divided":
        frames = video.num_frames - sum(encoder.schedules["frames"])
        patches = (tokens - 1) // frames
    elif model.attention == "space":
        frames, patches = video.num_frames, tokens // video.num_frames - 1
    return Cost(round(macs / 1e9, 3), round(executed / 1e9, 3), frames, patches, tokens)


def _squares(model: TestaConfig, video: VideoConfig, aggregation: AggregationConfig) -> Squares | None:
    """Squares of as many tokens as a video keeps; None for another reducer."""
    if aggregation.reducer != "quadtree":
        return None
    assert aggregation.keep is not None
    side = video.image_size // model.patch_size
    count = squares_of_share(aggregation.keep, video.num_frames, side, side, aggregation.root_level)[1]
    patches = torch.empty(1, video.num_frames, side**2, dtype=torch.int64, device="meta")
    row = torch.empty(1, count, dtype=torch.int64, device="meta")
    return Squares(patches.flatten(1), row, row, patches)


def _class_token_matches(encoder: VideoEncoder, num_frames: int) -> int:
    """What the paper counts in addition: similarities of the class token, which it computes and we do not.

    There, the class token is in set A and never leaves, but is compared with all of set B when patches or joint tokens
    merge.
    """
    macs = 0
    patches = encoder.grid[0] * encoder.grid[1]
    tokens = num_tokens_in_blocks(encoder.before_blocks, num_frames, patches)

    # Follow the schedule block by block, since later blocks see fewer tokens.
    for block in encoder.blocks:
        if isinstance(block, DividedBlock):
            num_frames -= block.merge_frames.num_leaving(num_frames)
            leaving = block.merge_patches.num_leaving(patches)
            if leaving and block.merge_patches.reducer == "geometry":
                macs += num_frames * -(-patches // 2) * encoder.width // block.attn.heads
            patches -= leaving
        elif isinstance(block, JointBlock):
            leaving = block.merge_tokens.num_leaving(tokens)
            macs += -(-tokens // 2) * encoder.width // block.attn.heads if leaving else 0
            tokens -= leaving
    return macs


def _saved_by_folding(encoder: VideoEncoder, num_frames: int, num_left: int) -> int:
    """The cost of the second of two linear layers, less the cost of the matrix product that replaces it.

    Of patches that leave before the first block, `num_left` remain in all of them.
    """
    macs, patches = 0, encoder.grid[0] * encoder.grid[1]
    for block in encoder.blocks:
        if isinstance(block, DividedBlock):
            tokens = num_frames * patches if encoder.before_blocks is None else num_left
            saved = encoder.width**2 * (tokens - encoder.width - 1)  # 1 for the bias
            macs += saved if block.folds(num_frames, patches) else 0
            num_frames -= block.merge_frames.num_leaving(num_frames)
            patches -= block.merge_patches.num_leaving(patches)
    return macs


def _elements(shape: Any) -> int:
    return torch.Size(shape).numel()
