"""Compare two results of the same data: the difference of every metric, with its 95 % interval.

    python -m scripts.compare_results outputs/without outputs/with
    python -m scripts.compare_results outputs/a1 outputs/a2 outputs/a3 --with outputs/b1 outputs/b2 outputs/b3

Each is a run's folder with results.json and outcomes.json. The same videos are drawn for both (a paired bootstrap);
of several runs, such as seeds, the runs are drawn, too. Runs are paired in the order they are given in.
"""

import argparse
import json
import sys
from pathlib import Path

from scripts.parts.compared_results import compare
from tasks.metrics.intervals import LEVEL, Difference

LOWER_IS_BETTER = ("rank",)
"""Parts of the names of metrics that are better when lower."""


def verdict(metric: str, difference: Difference) -> str:
    """Whether B is better, worse, or not shown to differ."""
    if not difference.is_shown:
        return "no difference shown"
    lower_is_better = any(part in metric for part in LOWER_IS_BETTER)
    return "B is better" if (difference.low > 0) != lower_is_better else "B is worse"


def table(found: dict[str, Difference]) -> list[str]:
    """A line a metric, in aligned columns."""
    lines = [("metric", "A", "B", "B - A", f"{LEVEL:g} % interval", "")]
    for metric, difference in found.items():
        ends = f"[{difference.low:+.2f}, {difference.high:+.2f}]"
        numbers = (f"{difference.a:.2f}", f"{difference.b:.2f}", f"{difference.b - difference.a:+.2f}")
        lines.append((metric, *numbers, ends, verdict(metric, difference)))

    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = []
    for name, *cells, last in lines:
        shown = [f"{cell:>{width}}" for cell, width in zip(cells, widths[1:-1], strict=True)]
        aligned.append("  ".join([f"{name:{widths[0]}}", *shown, last]).rstrip())
    return aligned


def parse_arguments(words: list[str] | None) -> argparse.Namespace:
    """Read the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="A and B; with --with, the runs of A alone")
    parser.add_argument("--with", dest="others", nargs="+", type=Path, metavar="RUN", help="the runs of B")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Print what the command line asks for; the status to end with."""
    arguments = parse_arguments(words)
    try:
        if arguments.others is None and len(arguments.runs) != 2:
            raise ValueError("give two runs, A and B, or several runs on both sides of --with")
        folders_a = arguments.runs if arguments.others else arguments.runs[:1]
        found, notes = compare(folders_a, arguments.others or arguments.runs[1:])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    if arguments.json:
        metrics = {name: {**part._asdict(), "verdict": verdict(name, part)} for name, part in found.items()}
        print(json.dumps({"percent": LEVEL, "notes": notes, "metrics": metrics}, indent=1))
    else:
        print("\n".join([*table(found), *notes]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
