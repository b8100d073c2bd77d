"""The options for windows over long videos."""

import argparse

from inference.features.windows import Windows
from scripts.parts.arguments import positive


def add_windows(parser: argparse.ArgumentParser) -> None:
    """The options that `windows_of` reads."""
    parser.add_argument(
        "--window",
        type=positive,
        metavar="SECONDS",
        help="encode windows of this length too, so that moments of long videos can be found",
    )
    parser.add_argument(
        "--stride", type=positive, metavar="SECONDS", help="from one window to the next; by default a window"
    )


def windows_of(length: float | None, stride: float | None) -> Windows | None:
    """The windows that `--window` and `--stride` ask for; None for whole videos alone."""
    if length is None:
        if stride is not None:
            raise ValueError("--stride: has no effect without --window; give both, or leave it out")
        return None
    return Windows(length, length if stride is None else stride)
