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
from typing import Any, NamedTuple

from tasks.metrics.intervals import LEVEL, REPLICATES, Difference, Outcomes, Pair, paired_differences
from tasks.outcomes import OUTCOMES, read_outcomes

SAME = ("task", "dataset", "split")
"""What two results must agree in to be compared."""
LOWER_IS_BETTER = ("rank",)
"""Parts of the names of metrics that are better when lower."""


class Run(NamedTuple):
    """A folder's results.json, and its outcomes by set."""

    folder: Path
    results: dict[str, Any]
    sets: dict[str, Outcomes]


def read_run(folder: Path) -> Run:
    """Read a run's folder; ValueError says which file is missing or wrong."""
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path}: not there; name the output folder of an evaluated run") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    return Run(folder, results, read_outcomes(folder / OUTCOMES))


def paired(a: Run, b: Run) -> tuple[Pair, int]:
    """The outcomes of the items that both runs have, in one order, and how many items only one has."""
    for name in SAME:
        if a.results.get(name) != b.results.get(name):
            raise ValueError(
                f"{a.folder} and {b.folder} differ in {name}: {a.results.get(name)} and {b.results.get(name)}; only "
                "results of the same data can be compared"
            )

    sets_a, sets_b, alone = {}, {}, 0
    for name in [name for name in a.sets if name in b.sets]:
        common = sorted(set(a.sets[name].items) & set(b.sets[name].items))
        if not common:
            raise ValueError(f"{a.folder} and {b.folder} have none of the {name} in common")
        alone += len(a.sets[name].items) + len(b.sets[name].items) - 2 * len(common)
        sets_a[name], sets_b[name] = (restricted(run.sets[name], common) for run in (a, b))
    return (sets_a, sets_b), alone


def restricted(outcomes: Outcomes, items: list[str]) -> Outcomes:
    """The outcomes of these items, in this order."""
    place = {item: number for number, item in enumerate(outcomes.items)}
    chosen = [place[item] for item in items]
    classes = outcomes.classes
    return Outcomes(
        outcomes.statistic,
        items,
        [outcomes.videos[number] for number in chosen],
        {name: values[chosen] for name, values in outcomes.values.items()},
        None if classes is None else [classes[number] for number in chosen],
    )


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


def compare(folders_a: list[Path], folders_b: list[Path]) -> tuple[dict[str, Difference], list[str]]:
    """The differences, and what a reader must know of the comparison."""
    if len(folders_a) != len(folders_b):
        raise ValueError(f"{len(folders_a)} runs cannot be paired with {len(folders_b)}; give as many on both sides")

    pairs, alone, videos = [], 0, 0
    for folder_a, folder_b in zip(folders_a, folders_b, strict=True):
        pair, only_one = paired(read_run(folder_a), read_run(folder_b))
        pairs.append(pair)
        alone += only_one
        videos += len({video for outcomes in pair[0].values() for video in outcomes.videos})

    drawn = "videos" if len(pairs) == 1 else f"{len(pairs)} pairs of runs and videos"
    notes = [f"{videos} videos; {REPLICATES} replicates that draw {drawn}"]
    if alone:
        notes.append(f"{alone} items that only one result has are left out of both")
    return paired_differences(pairs), notes


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
