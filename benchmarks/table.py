"""Prints a benchmark's rows for people: the machine, and each value with its spread."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.measure import Row
from benchmarks.settings import Settings

TIMES = ("ours", "naive", "limit", "peer")
RATIOS = {"ours_over_limit": "ours/limit", "naive_over_ours": "naive/ours"}
PEAKS = {"peak_bytes_ours": "peak, ours", "peak_bytes_naive": "peak, naive"}


def machine(settings: Settings) -> str:
    """One line: what it ran on, and with which versions."""
    cpu = f"{_cpu_model()}, {usable_cores()} cores, {settings.threads} threads"
    gpu = f"{torch.cuda.get_device_name()}, " if settings.device == "cuda" else ""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{gpu}{cpu}; {versions}; medians of {settings.rounds} rounds (least .. most)"


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def render(rows: Sequence[Row]) -> str:
    """A table of text, a line a row; columns in which nothing was measured are left out."""
    header = ["", *TIMES, *RATIOS.values(), *PEAKS.values()]
    lines = [header] + [[row.name, *_times(row), *_ratios(row), *_peaks(row)] for row in rows]
    shown = [column for column in zip(*lines, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in shown]
    aligned = []
    for cells in zip(*shown, strict=True):
        first, *others = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        aligned.append("  ".join([first, *others]).rstrip())
    return "\n".join(aligned)


def _times(row: Row) -> list[str]:
    cells = []
    for name in TIMES:
        median = getattr(row, f"{name}_s")
        cells.append("" if median is None else _seconds(median, *row.spread[name]))
    return cells


def _ratios(row: Row) -> list[str]:
    values = [getattr(row, name) for name in RATIOS]
    return ["" if value is None else f"{value:.3f}" for value in values]


def _peaks(row: Row) -> list[str]:
    values = [getattr(row, name) for name in PEAKS]
    return ["" if value is None else f"{value / 2**20:,.0f} MiB" for value in values]


def _seconds(median: float, least: float, most: float) -> str:
    scale, unit = next(((scale, unit) for scale, unit in ((1, "s"), (1e3, "ms")) if median * scale >= 1), (1e6, "us"))
    return f"{median * scale:.4g} {unit} ({least * scale:.4g} .. {most * scale:.4g})"
