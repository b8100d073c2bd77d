"""Make a story set: small procedural videos with paragraphs, questions and answers.

    python -m scripts.make_story_videos outputs/stories --train 1500 --test 200 --seed 0

A video is a few scenes of coloured shapes that move, grow, spin or blink; its paragraph has one sentence a scene. With
`--kind glimpses` scenes are still and of different lengths, and in each a small coloured shape is seen for a moment
among grey ones. Some stories come in pairs of the same scenes in different orders. OUT then holds

    videos/train_00000.mp4 ...              the videos
    train.jsonl  test.jsonl                 {"video", "caption"}, one line a video
    train_qa.jsonl  test_qa.jsonl           {"video", "question", "answer"}, several lines a video
    order_pairs.jsonl                       {"video", "caption", "reordered"}: test videos with a partner; "reordered"
                                            is the partner's paragraph, the same sentences in the partner's order
    story_set.json                          the arguments; written last

The seed fixes all files to the byte, on one machine with one version of the encoder.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from datasets.stories.story_set import Kind, StorySet, make, option
from scripts.parts.arguments import at_least


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = StorySet()
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; must be new, empty or already finished")
    helps = {
        "train": "videos to train on",
        "test": "held-out videos",
        "scenes": "scenes, and sentences, a video",
        "frames_per_scene": "frames a scene, of glimpses on average",
        "size": "height and width in pixels, a multiple of 32",
        "fps": "frames a second",
        "seed": "fixes annotations and pixels",
    }
    for name, text in helps.items():
        parser.add_argument(option(name), type=int, default=getattr(default, name), help=f"{text} (%(default)s)")
    parser.add_argument("--kind", choices=get_args(Kind), default=default.kind, help="of story (%(default)s)")
    parser.add_argument(
        "--pairs",
        type=float,
        default=default.pairs,
        metavar="SHARE",
        help="share of the videos of each split whose scenes another one shows in another order (%(default)s)",
    )
    parser.add_argument("--workers", type=at_least(1), default=2, help="processes (%(default)s)")

    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Makes the story set that the command line asks for; a bad argument ends it with one line and status 2."""
    options = vars(parse_arguments(arguments))
    out, workers = options.pop("out"), options.pop("workers")
    try:
        made = make(out, StorySet(**options), workers)
    except (ValueError, OSError) as error:
        print(f"make_story_videos: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"story set {'written' if made else 'already complete, nothing to do'}: {out}")


if __name__ == "__main__":
    main()
