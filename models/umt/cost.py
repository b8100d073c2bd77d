"""Multiply-accumulates of UMT's video encoder, and the tokens it leaves, from sizes alone.

vid-TLDR's convention, which is fvcore's: the video encoder with its pooling, one video, one multiply-accumulate counted
as one, a LayerNorm as five per element; softmax, GELU, sorting, gathers and sums are not counted. The similarities of
tokens are part of `gmacs`; the released code computes them but its printed number lacks them.
"""

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.models.umt import UMTConfig, token_schedule
from configs.schedule import kept_of_share, num_leaving
from configs.squares import products_of_parts, squares_of_share
from models.parts.cost import Cost, check_countable

MACS_PER_NORM_ELEMENT = 5
CHANNELS = 3


def count(model: UMTConfig, video: VideoConfig, aggregation: AggregationConfig) -> Cost:
    """The cost of encoding one video of the configured size."""
    model.check(video, aggregation)
    check_countable(aggregation)
    width, norm = model.width, MACS_PER_NORM_ELEMENT * model.width
    patches = (video.image_size // model.patch_size) ** 2
    tokens = video.num_frames * patches
    compared = width if aggregation.in_blocks == "saliency" else width // model.heads

    matching = 0
    macs = tokens * CHANNELS * model.patch_size**2 * width
    if aggregation.reducer == "run_length":
        # All patches are embedded, and those that stay enter the first block.
        assert aggregation.keep is not None
        tokens = kept_of_share(aggregation.keep, video.num_frames, patches)
    if aggregation.reducer == "quadtree":
        # Patches are embedded once more: which of them merge is decided before the encoder sees them.
        assert aggregation.keep is not None
        macs *= 2
        side = video.image_size // model.patch_size
        matching = width * products_of_parts(video.num_frames, side, side, aggregation.root_level)
        tokens = squares_of_share(aggregation.keep, video.num_frames, side, side, aggregation.root_level)[1]
    for amount in token_schedule(model, video, aggregation):
        # Norm; queries, keys, values and output; scores and their product with values.
        macs += tokens * norm + 4 * tokens * width**2 + 2 * tokens**2 * width
        leaving = num_leaving(amount, tokens, protected=0)
        if leaving:
            matching += _pairs(aggregation.in_blocks, tokens, leaving) * compared
            tokens -= leaving
        # Norm and MLP of the tokens that are left.
        macs += tokens * norm + int(2 * model.mlp_ratio * tokens * width**2)
    pooled = video.num_frames if model.pooling == "frames" else 1
    macs += (tokens + pooled) * norm
    gmacs, without_matching = (round(count / 1e9, 3) for count in (macs + matching, macs))
    return Cost(gmacs, gmacs, None, None, tokens, gmacs_without_matching=without_matching)


def _pairs(reducer: str, tokens: int, leaving: int) -> int:
    """How many pairs of tokens are compared: those that leave with the others, or one half of all with the other."""
    if reducer == "prune":
        return 0
    return leaving * (tokens - leaving) if reducer == "importance" else -(-tokens // 2) * (tokens // 2)
