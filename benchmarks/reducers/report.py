"""What the runs found: a row for each reducer and stage, the claims that hold or not, and both as markdown."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.reducers.runs import Seed
from benchmarks.reducers.schedules import Matched
from benchmarks.reducers.settings import REFERENCE, STAGES, Comparison, Finding, Stage, Task

METRICS: dict[str, tuple[Task, str]] = {
    "R@1": ("retrieval", "t2v_r1"),
    "R@5": ("retrieval", "t2v_r5"),
    "R@10": ("retrieval", "t2v_r10"),
    "QA": ("vqa", "accuracy"),
}
AVERAGE = ("R@1", "R@5", "R@10")
STAGE_NAMES: dict[Stage, str] = {"off_the_shelf": "off the shelf", "fine_tuned": "fine-tuned"}


@dataclass(frozen=True)
class Row:
    """A reducer at one stage; each metric in percent, one value for every seed that its task is finished for."""

    reducer: str
    stage: Stage
    gmacs: float
    schedule: str
    metrics: dict[str, list[float]]

    @property
    def recall(self) -> list[float]:
        """The average of R@1, R@5 and R@10, for each seed."""
        averaged = [self.metrics[name] for name in AVERAGE]
        return [statistics.mean(values) for values in zip(*averaged, strict=True)]


def rows_of(comparison: Comparison, finished: dict[Task, list[Seed]], reducers: dict[str, Matched]) -> list[Row]:
    """Rows of all reducers, in the order of the settings, first off the shelf, then fine-tuned.

    `finished` says for which seeds each task is.
    """
    rows = []
    for stage in STAGES:
        for name, matched in reducers.items():
            # What takes nothing away is the same run at both stages, and has one row, under fine-tuned.
            takes_nothing = name == comparison.unmerged(comparison.named(name)).name
            if stage not in comparison.stages and not (takes_nothing and stage == "fine_tuned"):
                continue
            if takes_nothing and stage == "off_the_shelf":
                continue

            metrics = {}
            for metric, (task, key) in METRICS.items():
                runs = [seed.at(task, stage, name) for seed in finished.get(task, [])]
                metrics[metric] = [run.results()["metrics"][key] for run in runs]
            rows.append(Row(name, stage, matched.cost.gmacs, described(matched), metrics))
    return rows


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
    if aggregation.keep is not None:
        return f"{aggregation.keep:g} of the tokens kept"

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
    return f"{' and '.join(leaving)} a block" if leaving else f"{matched.video.num_frames} frames read"


def verdict(finding: Finding, rows: Sequence[Row]) -> str:
    """The claim, and whether it holds by recall and, where there are any, by answers: yes is in every seed."""
    by_name = {(row.reducer, row.stage): row for row in rows}
    # What takes nothing away has one row, under fine-tuned.
    better, worse = (
        by_name.get((name, finding.stage)) or by_name[name, "fine_tuned"] for name in (finding.better, finding.worse)
    )
    quality = {"recall": (better.recall, worse.recall), "answers": (better.metrics["QA"], worse.metrics["QA"])}
    differences = [f"by {name} {_held(*values)}" for name, values in quality.items() if values[0]]
    return (
        f"{finding.claim} ({better.reducer}, {worse.reducer}, {STAGE_NAMES[finding.stage]}): {'; '.join(differences)}"
    )


def _held(better: list[float], worse: list[float]) -> str:
    differences = [left - right for left, right in zip(better, worse, strict=True)]
    holding = sum(difference > 0 for difference in differences)
    if holding == len(differences):
        answer = "yes"
    else:
        answer = "no" if statistics.mean(differences) <= 0 else "not in every seed"
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


def table(rows: Sequence[Row], measured: dict[str, dict[str, float]]) -> list[str]:
    """The rows as a markdown table; time and memory are of one video, and blank until they are measured."""
    lines = [
        f"| reducer | stage | schedule | GMACs | {' | '.join(METRICS)} | ms a video | MiB |",
        "|---" * (len(METRICS) + 6) + "|",
    ]
    for row in rows:
        cost = measured.get(row.reducer)
        speed = ["", ""] if cost is None else [f"{1000 * cost['seconds']:.1f}", f"{cost['peak_bytes'] / 2**20:.1f}"]
        stage = "-" if row.reducer == REFERENCE else STAGE_NAMES[row.stage]
        quality = [spread(values) for values in row.metrics.values()]
        lines.append(f"| {' | '.join([row.reducer, stage, row.schedule, f'{row.gmacs:.3f}', *quality, *speed])} |")
    return lines
