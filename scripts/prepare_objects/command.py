"""The options of `python -m scripts.prepare_objects`."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from datasets import sampling
from scripts.parts.arguments import at_least, positive
from scripts.parts.worker_pool import JOBS_HELP
from scripts.prepare_objects.ways import CachesRequest, DetectorRequest, Request, VinvlRequest

PER_SECOND = "per_second"
"""STOA-VLP's own rule, which files and caches made with its code follow."""
OTHERS = [name for name in sampling.SAMPLERS if name not in sampling.RANDOM_SAMPLERS]


@dataclass(frozen=True)
class Command:
    """A command line: the boxes it asks for, the file to make, and how many clips to draw beside it."""

    request: Request
    out: Path
    pictures: int
    allow_failures: bool


def parse(description: str | None, words: list[str] | None = None) -> Command:
    """Read a command line; None means the process's own."""
    options = vars(_parser(description).parse_args(words))
    way, out, allow_failures = options.pop("way"), options.pop("out"), options.pop("allow_failures")
    pictures = options.pop("pictures", 0)
    options["workers"] = options.pop("jobs")

    # What is left is named like the fields of the way's request.
    if way == "caches":
        options["files"] = tuple(options["files"])
    request = {"detect": DetectorRequest, "vinvl": VinvlRequest, "caches": CachesRequest}[way](**options)
    return Command(request, out, pictures, allow_failures)


def _parser(description: str | None) -> argparse.ArgumentParser:
    """The options of every source of boxes."""
    root = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = root.add_subparsers(dest="way", required=True)

    detect = ways.add_parser("detect", help="run a detector of torchvision on videos")
    _add_frames(detect, [*OTHERS, PER_SECOND])
    detect.add_argument("--videos", type=Path, required=True, help="folder of the videos")
    detect.add_argument("--manifest", type=Path, help="JSONL of the clips; without it, every video of the folder")
    detect.add_argument("--model", default="fasterrcnn_resnet50_fpn_v2", help="in torchvision (%(default)s)")
    detect.add_argument(
        "--weights", default="published", help="`published` (torchvision fetches them), `random`, or a file"
    )
    detect.add_argument("--label-map", type=Path, help="class names of a file's own classes; COCO's by default")
    detect.add_argument("--min-confidence", type=float, default=0.2, help="of a box (%(default)s)")
    detect.add_argument("--pictures", type=at_least(0), default=0, help="draw so many clips beside OUT (%(default)s)")

    vinvl = ways.add_parser("vinvl", help="read VinVL's JSON files, one a video")
    _add_frames(vinvl, [PER_SECOND, *OTHERS])
    vinvl.add_argument("--detections", type=Path, required=True, help="folder of NAME.json files")
    vinvl.add_argument("--label-map", type=Path, required=True, help="VinVL's label_map.json, or your detector's")
    vinvl.add_argument("--box-order", choices=("xyxy", "xxyy"), help="of rect; found out by default")
    vinvl.add_argument(
        "--coordinates",
        choices=("frame", "video"),
        default="frame",
        help="boxes are in pixels of the square frame that the model sees, or of the video (%(default)s)",
    )
    vinvl.add_argument("--videos", type=Path, help="folder of the videos, for --coordinates video")
    vinvl.add_argument("--skip-unknown-classes", action="store_true", help="leave out boxes of other classes")

    caches = ways.add_parser("caches", help="read object_attr_*.pth files of STOA-VLP's code")
    _add_frames(caches, [PER_SECOND, *OTHERS])
    caches.add_argument("--files", type=Path, nargs="+", required=True, help="the caches")
    caches.add_argument("--label-map", type=Path, help="VinVL's label_map.json, for names of classes")
    return root


def _add_frames(way: argparse.ArgumentParser, rules: list[str]) -> None:
    """What says which frames the boxes are of; training and evaluation must take the same."""
    way.add_argument("out", type=Path, help="the file to make, for example msrvtt.objects")
    way.add_argument("--num-frames", type=at_least(1), default=12, help="of a clip (%(default)s)")
    way.add_argument("--per-frame", type=at_least(1), default=10, help="boxes of a frame (%(default)s)")
    way.add_argument("--image-size", type=at_least(16), default=224, help="side of a frame in pixels (%(default)s)")
    way.add_argument("--fit", choices=("crop", "squash"), default="crop", help="of a video to a square (%(default)s)")
    way.add_argument("--sampling", choices=rules, default=rules[0], help="rule for frames (%(default)s)")
    way.add_argument("--jobs", type=at_least(0), default=1, help=JOBS_HELP)
    way.add_argument("--timeout", type=positive, default=600.0, help="seconds without progress (%(default)s)")
    way.add_argument("--allow-failures", action="store_true", help="finish OUT without the clips that failed")
