"""Make hours of small video with needles in them, and minutes to learn from.

    python -m scripts.make_needle_videos outputs/needles --hours 50 --seed 0

A needle is an event of 1 to 3 seconds: two bright shapes beside each other, or one that passes the other. Its text
describes no other event of any hour, but many differ from it in one fact: a colour, a shape, where the shapes are, or
which shape is which. Between events a single shape drifts. A second is one frame. OUT then holds

    videos/hours/hour_00.mp4 ...          the hours
    videos/minutes/minute_0000.mp4 ...    minutes to learn from, with other events
    needles.jsonl                         {"video", "caption", "start", "end"}: what is to be found, where
    scenes.jsonl                          the same of every scene of the hours
    train_0.jsonl ... train_7.jsonl       the same of clips of the minutes, each as long as --window; all events of
                                          the same two shapes are in one file, for batches of look-alikes
    test.jsonl                            the same of the minutes that are held out
    needle_set.json                       the arguments; written last

The seed fixes all files to the byte, on one machine with one version of the encoder.
"""

import argparse
import sys
from pathlib import Path

from datasets.stories.finished import option
from datasets.stories.needle_set import NeedleSet, make
from scripts.parts.arguments import at_least

HELP = {
    "hours": "hours to search",
    "needles": "needles an hour",
    "look_alikes": "other events an hour, which differ from a needle of any hour in one fact",
    "seconds": "length of an hour",
    "minutes": "minutes to learn from",
    "test": "how many of these minutes are held out",
    "families": "events that those of the minutes look like; the fewer, the more of a batch look alike",
    "window": "seconds of a clip to learn from",
    "size": "height and width in pixels, a multiple of 32",
    "seed": "fixes annotations and pixels",
}


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = NeedleSet()
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; must be new, empty or already finished")
    for name, text in HELP.items():
        parser.add_argument(option(name), type=int, default=getattr(default, name), help=f"{text} (%(default)s)")
    parser.add_argument("--workers", type=at_least(1), default=2, help="processes (%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Makes the set that the command line asks for; a bad argument ends it with one line and status 2."""
    options = vars(parse_arguments(arguments))
    out, workers = options.pop("out"), options.pop("workers")
    try:
        made = make(out, NeedleSet(**options), workers)
    except (ValueError, OSError) as error:
        print(f"make_needle_videos: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"needle set {'written' if made else 'already complete, nothing to do'}: {out}")


if __name__ == "__main__":
    main()
