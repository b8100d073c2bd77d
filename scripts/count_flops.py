"""Count the multiply-accumulates of a video encoder, and the tokens it leaves, without running it.

    python -m scripts.count_flops --config configs/retrieval/queryd_f32.yaml aggregation.keep=0.25
    python -m scripts.count_flops --frames 32 --reducer geometry --frames-per-block 1 --patches-per-block 12 --json

The paper's convention: the encoder alone, one video, one multiply-accumulate counted as one, a LayerNorm as five per
element; softmax, GELU, sorting, gathers and sums are not counted. What is executed is less: `temporal_attn.proj` and
`temporal_fc` are one layer, and class tokens are not matched. Runs on the meta device, in seconds.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from configs.load import load_any
from configs.model import AMOUNTS
from configs.schema import CONFIG_CLASSES, AggregationConfig, ModelConfig, VideoConfig
from models.blocks import DividedBlock, JointBlock
from models.video_encoder import VideoEncoder
from scripts.arguments import at_least

MACS_PER_NORM_ELEMENT = 5


class Cost(NamedTuple):
    """Giga multiply-accumulates of one video, as the paper counts and as executed, and what is left.

    That is frames and patches (None for joint), and all tokens.
    """

    gmacs: float
    executed_gmacs: float
    frames: int | None
    patches: int | None
    tokens: int


def count(model: ModelConfig, video: VideoConfig, aggregation: AggregationConfig) -> Cost:
    """The cost of encoding one video of the configured size."""
    with torch.device("meta"):
        encoder = VideoEncoder(model, video, aggregation).eval()
        pixels = torch.empty(1, video.num_frames, 3, video.image_size, video.image_size)
    # The counter counts two a multiply-accumulate.
    norms = {torch.ops.aten.native_layer_norm: lambda *shapes, **_: 2 * MACS_PER_NORM_ELEMENT * _elements(shapes[0])}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=norms) as counter:
        encoded = encoder(pixels)
    executed = counter.get_total_flops() / 2
    macs = executed + _class_token_matches(encoder, video.num_frames) + _saved_by_folding(encoder, video.num_frames)
    frames = patches = None
    tokens = encoded.tokens.shape[1]
    if model.attention == "divided":
        frames = video.num_frames - sum(encoder.schedules["frames"])
        patches = (tokens - 1) // frames
    elif model.attention == "space":
        frames, patches = video.num_frames, tokens // video.num_frames - 1
    return Cost(round(macs / 1e9, 3), round(executed / 1e9, 3), frames, patches, tokens)


def _class_token_matches(encoder: VideoEncoder, num_frames: int) -> int:
    """What the paper's count has on top: similarities of the class token, which it computes and we do not.

    A class token in set A, where it never leaves, is compared with all of set B wherever patches or joint tokens merge.
    """
    macs = 0
    patches = tokens = encoder.grid[0] * encoder.grid[1]
    tokens *= num_frames
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


def _saved_by_folding(encoder: VideoEncoder, num_frames: int) -> int:
    """What the second of two linear layers takes, less the product of the two that takes its place."""
    macs, patches = 0, encoder.grid[0] * encoder.grid[1]
    for block in encoder.blocks:
        if isinstance(block, DividedBlock):
            saved = encoder.width**2 * (num_frames * patches - encoder.width - 1)  # 1 for the bias
            macs += saved if block.folds(num_frames, patches) else 0
            num_frames -= block.merge_frames.num_leaving(num_frames)
            patches -= block.merge_patches.num_leaving(patches)
    return macs


def _elements(shape: Any) -> int:
    return torch.Size(shape).numel()


FLAGS = {
    "frames": "video.num_frames",
    "attention": "model.attention",
    "reducer": "aggregation.reducer",
    **{name: f"aggregation.{name}" for name in AMOUNTS},
}
"""What stands for a configuration, and the setting that each flag gives."""


def main() -> None:
    """Parse the command line, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="a configuration; else ViT-B/16 at 224 px from the flags below")
    parser.add_argument("overrides", nargs="*", help="of the configuration, such as video.num_frames=96")
    parser.add_argument("--frames", type=at_least(1), help="default: 32")
    parser.add_argument("--attention", choices=("divided", "joint", "space"), help="default: divided")
    parser.add_argument("--reducer", choices=("none", "geometry", "importance", "prune", "tome"), help="default: none")
    for axis in ("frames", "patches", "tokens"):
        parser.add_argument(f"--{axis}-per-block", type=at_least(0), help="default: 0")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    try:
        if arguments.config is not None:
            for name in FLAGS:
                if getattr(arguments, name) is not None:
                    flag = "--" + name.replace("_", "-")
                    raise ValueError(f"{flag}: has no effect with --config; override the setting: {FLAGS[name]}=...")
            config = load_any(CONFIG_CLASSES, arguments.config, arguments.overrides)
            cost = count(config.model, config.video, config.aggregation)
        elif arguments.overrides:
            raise ValueError(f"{arguments.overrides[0]}: overrides need --config")
        else:
            cost = count(
                ModelConfig(attention=arguments.attention or "divided"),
                VideoConfig(num_frames=arguments.frames or 32),
                AggregationConfig(
                    reducer=arguments.reducer or "none",
                    frames_per_block=arguments.frames_per_block or 0,
                    patches_per_block=arguments.patches_per_block or 0,
                    tokens_per_block=arguments.tokens_per_block or 0,
                ),
            )
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    if arguments.json:
        print(json.dumps(cost._asdict()))
    else:
        left = f"{cost.frames} frames x {cost.patches} patches, " if cost.frames is not None else ""
        print(f"{cost.gmacs:.3f} GMACs ({cost.executed_gmacs:.3f} executed), {left}{cost.tokens} tokens left")


if __name__ == "__main__":
    main()
