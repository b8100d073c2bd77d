"""Measures how time and memory grow with a size: point after point, each in a process of its own.

The largest points take minutes, so each is kept as soon as it is measured, and the same call after an interruption goes
on with the next.
"""

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.measure import Child, Variant, peak_bytes
from benchmarks.settings import Settings


@dataclass(frozen=True)
class Point:
    """One point of a curve.

    Attributes:
        at: where it lies, JSON-able, as its row says it: `{"frames": 96, "aggregation": "none"}`.
        variant: the work that is measured there.
    """

    at: dict[str, Any]
    variant: Variant


def measure_points(points: Sequence[Point], settings: Settings, path: Path, warm: bool = True) -> list[dict[str, Any]]:
    """A row for each point, `at` with `seconds` and `peak_bytes` added, in their order; also in `path`, as JSON.

    Args:
        settings: medians are over its `rounds`, and the peak is the largest of them.
        path: holds the rows of a finished measurement, which the next one replaces. What an unfinished one has
            measured stands beside it (`.partial`), and counts for the same points under the same settings alone.
        warm: False for work too long to be done again: one call a point, without one before it to warm up.

    Raises:
        ChildError: the work of a point failed; the points before it are kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    kept = {_key(line["measured"]): line["row"] for line in _lines(partial)}
    rows = []
    for point in tqdm(points, desc=path.stem, unit="point"):
        measured = {"point": asdict(point), "settings": asdict(settings), "warm": warm}
        row = kept.get(_key(measured))
        if row is None:
            row = {**point.at, **_measure(point.variant, settings, warm)}
            with partial.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"measured": measured, "row": row}) + "\n")
        rows.append(row)

    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    partial.unlink(missing_ok=True)

    return rows


def _measure(variant: Variant, settings: Settings, warm: bool) -> dict[str, Any]:
    with Child(variant, settings) as child:
        if warm:
            child.call()
        calls = [child.call() for _ in range(settings.rounds if warm else 1)]
    return {"seconds": statistics.median(call.seconds for call in calls), "peak_bytes": peak_bytes(calls)}


def _key(measured: dict[str, Any]) -> str:
    return json.dumps(measured, sort_keys=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that is not there at first; the last one is taken off it if it was cut short."""
    if not path.exists():
        return []
    content = path.read_bytes()
    complete_lines = content[: content.rfind(b"\n") + 1]
    os.truncate(path, len(complete_lines))
    return [json.loads(line) for line in complete_lines.splitlines()]
