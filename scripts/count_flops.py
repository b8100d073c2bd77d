"""Count the multiply-accumulates of a video encoder, and the tokens it leaves, without running it.

    python -m scripts.count_flops --config configs/testa/retrieval/queryd_f32.yaml aggregation.keep=0.25
    python -m scripts.count_flops --frames 32 --reducer geometry --frames-per-block 1 --patches-per-block 12 --json

The paper's convention: the encoder alone, one video, one multiply-accumulate counted as one, a LayerNorm as five per
element; softmax, GELU, sorting, gathers and sums are not counted. What is executed is less: `temporal_attn.proj` and
`temporal_fc` are one layer, and class tokens are not matched. Runs on the meta device, in seconds.
"""

import argparse
import json
from pathlib import Path

from configs.load import load_any
from configs.reducers import AMOUNTS
from configs.schema import CONFIG_CLASSES, AggregationConfig, TestaConfig, VideoConfig
from models.systems import count
from scripts.parts.arguments import at_least

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
                TestaConfig(attention=arguments.attention or "divided"),
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
        counted = cost._asdict()
        if cost.gmacs_without_matching is None:
            del counted["gmacs_without_matching"]  # the paper has no such number
        print(json.dumps(counted))
    else:
        left = f"{cost.frames} frames x {cost.patches} patches, " if cost.patches is not None else ""
        without = cost.gmacs_without_matching
        matching = f", {without:.3f} without matching" if without is not None else ""
        print(f"{cost.gmacs:.3f} GMACs ({cost.executed_gmacs:.3f} executed{matching}), {left}{cost.tokens} tokens left")


if __name__ == "__main__":
    main()
