"""Show what token aggregation does to a video: which frames and patches become one, block by block.

    python -m scripts.show_aggregation video.mp4 --checkpoint outputs/didemo/checkpoint_best
    python -m scripts.show_aggregation video.mp4 --checkpoint C --text "a red circle" aggregation.keep=0.25

OUT then holds

    regions.png      every frame that the encoder is shown, and what is left of it: merged patches in one colour,
                     merged frames in one border
    blocks.png       the same of some frames, block by block
    similarity.png   for each block, how similar those are that merge, and all others
    grounding.png    with --text: the similarity of the phrase with each region
    regions.mp4      all frames one after the other beside their regions, and their similarity with --text

They look like Figures 3, 8 and 4 of TESTA (EMNLP 2023). Settings such as aggregation.keep=0.25 go over the
checkpoint's own. Files of these names that are in OUT are replaced.
"""

import argparse
import sys
from pathlib import Path

from inference.api import load_model
from inference.pictures.aggregation import similarity_of, trace_of, write_pictures


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", metavar="VIDEO", help="a video or an image")
    parser.add_argument("--checkpoint", required=True, metavar="C", help="checkpoint folder, file, or hf:// address")
    parser.add_argument("--config", type=Path, help="YAML file of what a checkpoint without one holds")
    parser.add_argument("--text", help="a phrase to look for")
    parser.add_argument("--start", type=float, help="seconds at which the part to show begins")
    parser.add_argument("--end", type=float, help="seconds at which it ends")
    parser.add_argument("--out", type=Path, help="folder for the pictures (outputs/aggregation/NAME OF VIDEO)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as aggregation.keep=0.25")
    return parser.parse_intermixed_args(arguments)  # settings may stand anywhere


def main(arguments: list[str] | None = None) -> int:
    """Draw what the command line asks for; 2 and one line if that cannot be."""
    options = parse_arguments(arguments)
    name = Path(options.video).stem
    out: Path = options.out or Path("outputs/aggregation") / name

    try:
        if options.text is not None and not options.text.strip():
            raise ValueError("--text: is empty; give a phrase, or leave it away")
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out}: is a file; name a folder with --out")
        model = load_model(options.checkpoint, *options.overrides, config=options.config)
        trace = trace_of(model, options.video, options.start, options.end)
        similarity = None if options.text is None else similarity_of(model, trace, options.text)
        write_pictures(trace, out, name, options.text, similarity)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    print(f"pictures of {options.video} are in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
