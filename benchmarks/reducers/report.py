"""What the runs found: a row for each reducer and stage, the claims that hold or not, and both as markdown."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.reducers.cost import Measured, key_of
from benchmarks.reducers.runs import Seed
from benchmarks.reducers.schedules import Matched
from benchmarks.reducers.settings import BY_TIME, REFERENCE, STAGES, Comparison, Finding, Stage, Task
from scripts.parts.compared_results import compare

METRICS: dict[str, tuple[Task, str]] = {
    "R@1": ("retrieval", "t2v_r1"),
    "R@5": ("retrieval", "t2v_r5"),
    "R@10": ("retrieval", "t2v_r10"),
    "QA": ("vqa", "accuracy"),
}
AVERAGE = ("R@1", "R@5", "R@10")
STAGE_NAMES: dict[Stage, str] = {"off_the_shelf": "off the shelf", "fine_tuned": "fine-tuned"}


CHANGES: dict[str, tuple[Task, str]] = {"recall": ("retrieval", "t2v_mean_recall"), "answers": ("vqa", "accuracy")}


@dataclass(frozen=True)
class Row:
    """A reducer at one stage; each metric in percent, one value for every seed that its task is finished for.

    Attributes:
        price: what the schedule was matched by; None where none was.
        changes: by `recall` and `answers`, mean and 95 % interval of what changed against taking nothing away, in
            points: videos and seeds are drawn, the same for both.
    """

    reducer: str
    stage: Stage
    gmacs: float
    schedule: str
    metrics: dict[str, list[float]]
    price: str | None = None
    milliseconds: float | None = None
    mebibytes: float | None = None
    changes: dict[str, list[float]] = field(default_factory=dict)

    @property
    def recall(self) -> list[float]:
        """The average of R@1, R@5 and R@10, for each seed."""
        averaged = [self.metrics[name] for name in AVERAGE]
        return [statistics.mean(values) for values in zip(*averaged, strict=True)]


def rows_of(
    comparison: Comparison, finished: dict[Task, list[Seed]], reducers: dict[str, Matched], measured: Measured
) -> list[Row]:
    """Rows of all reducers, in the order of the settings, first off the shelf, then fine-tuned.

    `finished` says for which seeds each task is; `measured` may lack what was not measured yet.
    """
    rows = []
    for stage in STAGES:
        for name, matched in reducers.items():
            # What takes nothing away is the same run at both stages, and has one row, under fine-tuned.
            reducer = comparison.named(name)
            takes_nothing = name == comparison.unmerged(reducer).name
            if not comparison.has(stage, reducer) or (takes_nothing and stage == "off_the_shelf"):
                continue

            metrics = {}
            for metric, (task, key) in METRICS.items():
                runs = [seed.at(task, stage, name) for seed in finished.get(task, [])]
                metrics[metric] = [run.results()["metrics"][key] for run in runs]

            cost = measured.get(key_of(matched), {})
            seconds, peak = cost.get("seconds"), cost.get("peak_bytes")
            row = Row(
                reducer=name.removesuffix(f" {BY_TIME}"),
                stage=stage,
                gmacs=matched.cost.gmacs,
                schedule=described(matched),
                metrics=metrics,
                price=None if reducer.matched_by in ("nothing", "given") else reducer.price,
                milliseconds=None if seconds is None else 1000 * seconds,
                mebibytes=None if peak is None else peak / 2**20,
                changes={} if takes_nothing else changes_of(comparison, finished, stage, name),
            )
            rows.append(row)
    return rows


def changes_of(
    comparison: Comparison, finished: dict[Task, list[Seed]], stage: Stage, name: str
) -> dict[str, list[float]]:
    """What changed by a reducer against taking nothing away from the same video: mean, lower and upper end."""
    unmerged = comparison.unmerged(comparison.named(name)).name
    changes = {}
    for quality, (task, metric) in CHANGES.items():
        seeds = finished.get(task, [])
        if seeds:
            without = [seed.at(task, stage, unmerged).folder for seed in seeds]
            found, _ = compare(without, [seed.at(task, stage, name).folder for seed in seeds])
            change = found[metric]
            changes[quality] = [change.b - change.a, change.low, change.high]
    return changes


def sweep_rows(seeds: Sequence[Seed], schedules: dict[tuple[int, int], Matched]) -> list[dict[str, Any]]:
    """Rows {frames_per_block, patches_per_block, gmacs, recall: one a seed} of the sweep, and of no schedule at all."""
    runs = [seed.swept(schedules) for seed in seeds]

    rows = []
    for (frames, patches), matched in schedules.items():
        recall = [_recall(of_seed[frames, patches].results()["metrics"]) for of_seed in runs]
        amounts = {"frames_per_block": frames, "patches_per_block": patches}
        rows.append({**amounts, "gmacs": matched.cost.gmacs, "recall": recall})
    return rows


def _recall(metrics: dict[str, float]) -> float:
    return statistics.mean(metrics[METRICS[name][1]] for name in AVERAGE)


def described(matched: Matched) -> str:
    """The schedule in a few words."""
    aggregation = matched.aggregation
    kept = "" if aggregation.keep is None else f"{aggregation.keep:g} of the tokens kept"
    if kept and not aggregation.tokens_per_block:
        return kept

    amounts = {
        "frames": aggregation.frames_per_block,
        "patches": aggregation.patches_per_block,
        "tokens": aggregation.tokens_per_block,
    }
    leaving = []
    for axis, amount in amounts.items():
        if isinstance(amount, tuple):
            leaving.append(f"{', '.join(map(str, amount))} {axis}")
        elif amount:
            leaving.append(f"{amount} {axis}")
    if leaving:
        return f"{kept}{', then ' if kept else ''}{' and '.join(leaving)} a block"
    return f"{matched.video.num_frames} frames of {matched.video.image_size} px"


def verdict(finding: Finding, rows: Sequence[Row]) -> str:
    """The claim, and whether it holds by recall and, where there are any, by answers: yes is in every seed."""
    # Of a reducer's two rows the one at its share of GMACs, if there is one.
    by_time_first = sorted(rows, key=lambda row: row.price != "milliseconds")
    by_name = {(row.reducer, row.stage): row for row in by_time_first}
    # What takes nothing away has one row, under fine-tuned.
    better, worse = (
        by_name.get((name, finding.stage)) or by_name[name, "fine_tuned"] for name in (finding.better, finding.worse)
    )
    quality = {"recall": (better.recall, worse.recall), "answers": (better.metrics["QA"], worse.metrics["QA"])}
    differences = [f"by {name} {_held(*values, finding.points)}" for name, values in quality.items() if values[0]]
    return (
        f"{finding.claim} ({better.reducer}, {worse.reducer}, {STAGE_NAMES[finding.stage]}): {'; '.join(differences)}"
    )


def _held(better: list[float], worse: list[float], points: float = 0.0) -> str:
    differences = [left - right for left, right in zip(better, worse, strict=True)]
    enough = [difference > 0 and difference >= points for difference in differences]
    holding, mean = sum(enough), statistics.mean(differences)
    if holding == len(differences):
        answer = "yes"
    else:
        answer = "no" if mean <= 0 or mean < points else "not in every seed"
    return (
        f"{answer}, {spread(better)} and {spread(worse)}, {statistics.mean(differences):+.1f}, in {holding} of "
        f"{len(differences)} seeds"
    )


def spread(values: Sequence[float]) -> str:
    """Mean and, of several, standard deviation over seeds; nothing of none."""
    if not values:
        return ""
    mean = statistics.mean(values)
    return f"{mean:.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as a markdown table; time and memory are blank until they are measured."""
    head = [
        "reducer",
        "stage",
        "matched by",
        "schedule",
        "GMACs",
        "ms",
        "MiB",
        *METRICS,
        "recall changes",
        "QA changes",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]

    for row in rows:
        price = {None: "", "gmacs": "GMACs", "milliseconds": "ms"}[row.price]
        stage = "-" if row.reducer == REFERENCE else STAGE_NAMES[row.stage]
        speed = ["" if value is None else f"{value:.1f}" for value in (row.milliseconds, row.mebibytes)]

        quality = [spread(values) for values in row.metrics.values()]
        changed = [changed_by(row.changes.get(name)) for name in CHANGES]
        cells = [row.reducer, stage, price, row.schedule, f"{row.gmacs:.3f}", *speed, *quality, *changed]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def changed_by(change: Sequence[float] | None) -> str:
    """A difference in points with its interval."""
    if change is None:
        return ""
    mean, low, high = change
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
