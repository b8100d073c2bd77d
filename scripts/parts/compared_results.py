"""Two results of the same data, or several on both sides, and the differences of their metrics with intervals."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from tasks.metrics.intervals import REPLICATES, Difference, Outcomes, Pair, paired_differences
from tasks.outcomes import OUTCOMES, read_outcomes

SAME = ("task", "dataset", "split")
"""What two results must agree in to be compared."""


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
