"""Quality against cost, as figures: all reducers, and the sweep over schedules; bars are standard deviations."""

import statistics
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.reducers.report import STAGE_NAMES, Row
from benchmarks.reducers.settings import REFERENCE, STAGES, Stage
from engine.checkpoint_folder import replacing_file

MARKS: dict[Stage, str] = {"off_the_shelf": "o", "fine_tuned": "^"}
QUALITIES: dict[str, tuple[str, Callable[[Row], list[float]]]] = {
    "recall": ("average of R@1, R@5, R@10", lambda row: row.recall),
    "answers": ("accuracy of answers", lambda row: row.metrics["QA"]),
}


def draw_quality(rows: Sequence[Row]) -> Figure:
    """Average recall, and accuracy of answers if there is any, by reducer; one mark a stage, costs by the names.

    Points above no reducer at all, with their 95 % intervals: seeds differ by more than reducers do.
    """
    names = list(dict.fromkeys(_label(row) for row in reversed(rows) if row.changes))
    qualities = [name for name in QUALITIES if any(name in row.changes for row in rows)]
    figure = Figure(figsize=(4 + 4 * len(qualities), 1.8 + 0.3 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(qualities), sharey=True, squeeze=False)[0]
    for panel, quality in zip(panels, qualities, strict=True):
        panel.axvline(0, color="0.4", linestyle="--")
        for stage in STAGES:
            shift = 0.14 if stage == "off_the_shelf" else -0.14
            shown = [row for row in rows if row.stage == stage and quality in row.changes]
            if not shown:
                continue
            means, lows, highs = zip(*(row.changes[quality] for row in shown), strict=True)
            panel.errorbar(
                means,
                [names.index(_label(row)) + shift for row in shown],
                xerr=[
                    [mean - low for mean, low in zip(means, lows, strict=True)],
                    [high - mean for mean, high in zip(means, highs, strict=True)],
                ],
                fmt=MARKS[stage],
                capsize=3,
                label=STAGE_NAMES[stage],
            )

        panel.set_xlabel(f"{QUALITIES[quality][0]}:\npoints against {REFERENCE}, 95 % interval")
        panel.grid(visible=True, alpha=0.3)

    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(-0.7, len(names) - 0.3)
    panels[0].legend()

    return figure


def _label(row: Row) -> str:
    """A reducer with what it costs."""
    by = {None: "", "gmacs": " at its GMACs", "milliseconds": " at its time"}[row.price]
    time = "" if row.milliseconds is None else f", {row.milliseconds:.1f} ms"
    return f"{row.reducer}{by} ({row.gmacs:.3f} GMACs{time})"


def draw_tradeoff(rows: Sequence[Row]) -> Figure:
    """Quality against GMACs and, where measured, milliseconds and memory.

    It is that of fine-tuning, or off the shelf where nothing but the reference was fine-tuned.
    """
    reference = next(row for row in rows if row.reducer == REFERENCE)
    trained = any(row.stage == "fine_tuned" and row.changes for row in rows)
    stage: Stage = "fine_tuned" if trained else "off_the_shelf"
    shown_rows = [row for row in rows if row.stage == stage or row is reference]
    costs: dict[str, Callable[[Row], float | None]] = {
        "GMACs a video": lambda row: row.gmacs,
        "milliseconds a video (one thread)": lambda row: row.milliseconds,
        "peak memory (MiB)": lambda row: row.mebibytes,
    }
    shown = [(title, cost) for title, cost in costs.items() if all(cost(row) is not None for row in shown_rows)]
    qualities = list(QUALITIES.values())[: _num_qualities(rows)]
    figure = Figure(figsize=(5 * len(shown), 1.4 + 3.6 * len(qualities)), layout="constrained")
    panels = figure.subplots(len(qualities), len(shown), sharex="col", sharey="row", squeeze=False)

    reducers = list(dict.fromkeys(row.reducer for row in shown_rows))
    for of_quality, (name, quality) in zip(panels, qualities, strict=True):
        for panel, (_, cost) in zip(of_quality, shown, strict=True):
            for row in shown_rows:
                index = reducers.index(row.reducer)
                panel.errorbar(
                    cost(row),
                    statistics.mean(quality(row)),
                    yerr=_deviation(quality(row)),
                    fmt="os^Dv"[index // 10 % 5],
                    markerfacecolor="white" if row.price == "milliseconds" else None,
                    color=f"C{index % 10}",
                    capsize=3,
                    label=row.reducer if row.price != "milliseconds" else None,
                )
            panel.grid(visible=True, alpha=0.3)

        of_quality[0].set_ylabel(f"{name} (%)")

    for panel, (title, _) in zip(panels[-1], shown, strict=True):
        panel.set_xlabel(title)
    hollow = "; hollow: at its share of milliseconds" if any(row.price == "milliseconds" for row in rows) else ""
    figure.suptitle(f"{STAGE_NAMES[stage]}; bars: standard deviation over seeds{hollow}")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5)

    return figure


def _num_qualities(rows: Sequence[Row]) -> int:
    """Answering may not be finished for any seed; then it is for no row."""
    return 1 + any(row.metrics["QA"] for row in rows)


def draw_sweep(rows: Sequence[dict[str, Any]], unmerged: Row) -> Figure:
    """The paper's Figures 6 and 7: recall by how many frames and patches leave in a block, and against GMACs."""
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    both = [*rows, {"frames_per_block": 0, "patches_per_block": 0, "gmacs": unmerged.gmacs, "recall": unmerged.recall}]
    _lines(panels[0], both, "frames_per_block", "patches_per_block", "$R_T$, frames that leave a block", "$R_S$")
    _lines(panels[1], both, "patches_per_block", "frames_per_block", "$R_S$, patches that leave a block", "$R_T$")
    _lines(panels[2], both, "gmacs", "frames_per_block", "GMACs a video", "$R_T$")
    panels[0].set_ylabel("average recall off the shelf (%)")
    return figure


def _lines(panel: Axes, rows: Sequence[dict[str, Any]], x: str, group: str, title: str, group_name: str) -> None:
    ordered = sorted(rows, key=lambda row: (row[group], row[x]))
    for value, members in groupby(ordered, key=lambda row: row[group]):
        points = list(members)
        panel.errorbar(
            [row[x] for row in points],
            [statistics.mean(row["recall"]) for row in points],
            yerr=[_deviation(row["recall"]) for row in points],
            fmt="o-",
            markersize=4,
            capsize=3,
            label=f"{group_name} = {value}",
        )

    panel.set_xlabel(title)
    panel.grid(visible=True, alpha=0.3)
    panel.legend(fontsize=8)


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def write(figures: dict[str, Figure], folder: Path) -> list[Path]:
    """Write each figure as a PNG of its name, as a whole or not at all."""
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        with replacing_file(path) as temporary:
            figure.savefig(temporary, format="png", dpi=130, facecolor="white")
    return paths
