"""Figures of how time and memory grow, and the measurements behind them.

Each function of `FIGURES` measures what it shows, keeps that as JSON beside its PNGs, and returns the files it wrote.
"""

import json
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.settings import Settings, sections

Rows = Sequence[dict[str, Any]]
"""Measured points; the functions that measure them choose the keys."""

FRAMES = (8, 16, 32, 64, 96, 128, 192, 256)
VIDEOS = (100, 300, 1_000, 3_000, 10_000)
MANIFEST_ROWS = (1_000_000, 2_000_000, 5_000_000)
GIB, MIB = 2**30, 2**20


def encoder_figures(settings: Settings, folder: Path, frames: Sequence[int] = FRAMES) -> list[Path]:
    """Time and memory against frames; GMACs against time for a grid of how many tokens leave per block."""
    from benchmarks import encoder  # here and below: no benchmark needs what only another one imports

    growth = encoder.frames_growth(settings, frames, folder / "encoder_frames.json")
    grid = encoder.schedule_grid(settings, folder / "encoder_schedules.json")
    figures = {
        "encoder_frames": draw_frames(growth),
        "encoder_schedules": draw_schedules(grid, sections(settings)[1].num_frames),
    }
    return _write(figures, folder)


def evaluation_figures(settings: Settings, folder: Path, videos: Sequence[int] = VIDEOS) -> list[Path]:
    """Time and memory of an evaluation against videos."""
    from benchmarks import evaluate

    rows = evaluate.growth(settings, videos)
    return _write({"evaluation_growth": draw_evaluation(rows)}, folder, {"evaluation_growth": rows})


def manifest_figures(settings: Settings, folder: Path, rows: Sequence[int] = MANIFEST_ROWS) -> list[Path]:
    """Time and memory of opening a manifest against its rows."""
    from benchmarks import load

    growth = load.manifest_growth(settings, rows)
    return _write({"manifest_growth": draw_manifest(growth)}, folder, {"manifest_growth": growth})


def hour_figures(settings: Settings, folder: Path) -> list[Path]:
    """Time and memory of one video from 32 frames to an hour, and where the reference's way runs out of memory."""
    from benchmarks import hour_growth

    rows = hour_growth.growth(settings, folder / "hour_frames.json")
    return _write({"hour_frames": draw_hour(rows)}, folder)


FIGURES: dict[str, Callable[[Settings, Path], list[Path]]] = {
    "encoder": encoder_figures,
    "evaluate": evaluation_figures,
    "load": manifest_figures,
    "hour": hour_figures,
}


def draw_frames(rows: Rows) -> Figure:
    """Rows {aggregation, frames, seconds, peak_bytes}: two panels, one line each aggregation."""
    figure, (time, memory) = _panels("Encoding one video, with and without aggregation", "frames")
    for name, points in _grouped(rows, "aggregation"):
        _line(time, points, "frames", "seconds", 1, name)
        _line(memory, points, "frames", "peak_bytes", GIB, name)
    time.set_ylabel("seconds a video")
    memory.set_ylabel("peak memory beside weights and pixels (GiB)")
    for panel in (time, memory):
        _logarithmic(panel.xaxis, sorted({row["frames"] for row in rows}))
        _logarithmic(panel.yaxis)
        _finish(panel)
    return figure


def draw_hour(rows: Rows) -> Figure:
    """Rows {aggregation, frames, seconds, peak_bytes}: those of `draw_frames`, and where the reference's way ends."""
    from benchmarks import hour_growth

    figure = draw_frames(rows)
    figure.suptitle("Encoding one video of up to an hour, ViT-B/16, bfloat16")
    _, memory = figure.axes
    ahead = hour_growth.forecast(rows)
    if ahead is not None:
        frames, peaks = ahead
        (line,) = [line for line in memory.lines if line.get_label() == hour_growth.REFERENCE]
        label = f"forecast: {hour_growth.MACHINE_BYTES // GIB} GiB at {frames[-1]} frames"
        memory.plot(frames, [peak / GIB for peak in peaks], ":", color=line.get_color(), label=label)
        memory.plot(frames[-1:], [peaks[-1] / GIB], "x", color=line.get_color())
        memory.legend()
    return figure


def draw_schedules(rows: Rows, num_frames: int) -> Figure:
    """Rows {frames_per_block, patches_per_block, gmacs, seconds}: time against GMACs, and what it would be in step."""
    figure = Figure(figsize=(7, 5.2), layout="constrained")
    panel = figure.subplots()
    unreduced = max(rows, key=lambda row: row["gmacs"])
    panel.plot([0, unreduced["gmacs"]], [0, unreduced["seconds"]], "--", color="0.6", label="time in step with GMACs")
    for index, (frames, points) in enumerate(_grouped(rows, "frames_per_block")):
        _line(panel, points, "gmacs", "seconds", 1, f"$R_T$ = {frames}")
        beside = (5, -10) if index % 2 == 0 else (-10, 6)
        for row in points:
            panel.annotate(
                str(row["patches_per_block"]),
                (row["gmacs"], row["seconds"]),
                xytext=beside,
                textcoords="offset points",
                fontsize=8,
                color=panel.lines[-1].get_color(),
            )

    panel.set(
        title=f"Realised time of {num_frames} frames by what leaves per block\n(numbers at the points: $R_S$)",
        xlabel="GMACs a video, as the paper counts them",
        ylabel="seconds a video",
        xlim=(0, None),
    )
    _finish(panel, from_zero=True)

    return figure


def draw_evaluation(rows: Rows) -> Figure:
    """Rows {num_videos, seconds, peak_bytes}."""
    figure, (time, memory) = _panels("Evaluating retrieval, debug model", "videos, one text each")
    _line(time, rows, "num_videos", "seconds", 1, "ours")
    _line(memory, rows, "num_videos", "peak_bytes", MIB, "ours")
    last, numbers = max(rows, key=lambda row: row["num_videos"]), sorted(row["num_videos"] for row in rows)
    in_proportion = [last["seconds"] * number / last["num_videos"] for number in numbers]
    time.plot(numbers, in_proportion, "--", color="0.6", label="in proportion")
    time.set_ylabel("seconds")
    memory.set_ylabel("peak memory beside the model (MiB)")
    _logarithmic(time.xaxis, numbers)
    _logarithmic(time.yaxis)
    _logarithmic(memory.xaxis, numbers)
    _finish(time)
    _finish(memory, from_zero=True)
    return figure


def draw_manifest(rows: Rows) -> Figure:
    """Rows {rows, seconds, seconds_again, peak_bytes}: the first opening, and any later one."""
    figure, (time, memory) = _panels("Opening a manifest", "rows")
    _line(time, rows, "rows", "seconds", 1, "first time, indexing it")
    _line(time, rows, "rows", "seconds_again", 1, "again")
    _line(memory, rows, "rows", "peak_bytes", MIB, "first time")
    time.set_ylabel("seconds")
    memory.set_ylabel("peak memory (MiB)")
    _logarithmic(time.yaxis)
    for panel in (time, memory):
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:g} M"))
    _finish(time)
    _finish(memory, from_zero=True)
    return figure


def _panels(title: str, of_what: str) -> tuple[Figure, tuple[Axes, Axes]]:
    """Two panels side by side, of time and of memory."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    figure.suptitle(title)
    time, memory = figure.subplots(1, 2)
    time.set_title("Time")
    memory.set_title("Memory")
    for panel in (time, memory):
        panel.set_xlabel(of_what)
    return figure, (time, memory)


def _line(panel: Axes, rows: Rows, x: str, y: str, unit: float, name: str) -> None:
    """One line through the points that have a value: memory is not known everywhere."""
    points = sorted((row[x], row[y] / unit) for row in rows if row[y] is not None)
    panel.plot([point[0] for point in points], [point[1] for point in points], "o-", markersize=4, label=name)


def _logarithmic(axis: Axis, ticks: Sequence[int] | None = None) -> None:
    """A logarithmic axis with plain numbers at `ticks`, or at 1, 2 and 5 of every decade."""
    (axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale)("log")
    if ticks is None:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        axis.set_ticks(_legible(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _legible(ticks: Sequence[int]) -> list[int]:
    """Of ascending ticks those whose numbers do not run into the one before."""
    kept: list[int] = []
    for tick in ticks:
        if not kept or tick >= 1.3 * kept[-1]:
            kept.append(tick)
    return kept


def _finish(panel: Axes, from_zero: bool = False) -> None:
    if from_zero:
        panel.set_ylim(0, 1.25 * panel.dataLim.y1)
    panel.grid(visible=True, which="major", alpha=0.3)
    panel.legend()


def _grouped(rows: Rows, key: str) -> list[tuple[Any, list[dict[str, Any]]]]:
    """The rows of each value of `key`, in the order in which the values come first."""
    values = list(dict.fromkeys(row[key] for row in rows))
    ordered = sorted(rows, key=lambda row: values.index(row[key]))
    return [(value, list(group)) for value, group in groupby(ordered, key=lambda row: row[key])]


def _write(figures: dict[str, Figure], folder: Path, data: dict[str, Rows] | None = None) -> list[Path]:
    """Write the figures as PNG, and the rows of those whose measurement has not written them itself."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (data or {}).items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=130, facecolor="white")
    return [folder / f"{name}.{kind}" for name in figures for kind in ("json", "png")]
