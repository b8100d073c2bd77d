"""Points of a curve: each measured once, in their order, kept at once, and not again after an interruption."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.growth import Point, measure_points
from benchmarks.measure import Variant
from benchmarks.settings import Settings

SETTINGS = Settings(config=None, overrides=(), device="cpu", threads=1, rounds=3)


def work(settings: Settings, size: int, log: str, fails_unless: str | None = None) -> Callable[[], float]:
    """Work of about `size` seconds by its own account, more the first time, which writes down each call."""
    calls: list[int] = []

    def call() -> float:
        if fails_unless is not None and not Path(fails_unless).exists():
            raise RuntimeError("out of luck")
        calls.append(size)
        with Path(log).open("a") as file:
            file.write(f"{size}\n")
        return float(size + (100, 0, 5, 1)[len(calls) - 1])

    return call


def points(folder: Path, sizes: tuple[int, ...], failing: int | None = None) -> list[Point]:
    """Of which `failing` fails until there is a file `mended`."""
    log, mended = str(folder / "log"), str(folder / "mended")
    arguments = [{"size": size, "log": log, "fails_unless": mended if size == failing else None} for size in sizes]
    return [Point({"size": each["size"]}, Variant(f"{__name__}:work", each)) for each in arguments]


def calls(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "log").read_text().split()]


def test_rows_are_in_order_and_stand_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "plots" / "sizes.json"
    rows = measure_points(points(tmp_path, (3, 1)), SETTINGS, path)
    assert [(row["size"], row["seconds"]) for row in rows] == [(3, 4), (1, 2)]  # medians
    assert all(row["peak_bytes"] is None or row["peak_bytes"] >= 0 for row in rows)
    assert json.loads(path.read_text()) == rows
    assert calls(tmp_path) == [3] * 4 + [1] * 4
    assert [file.name for file in path.parent.iterdir()] == ["sizes.json"]


@pytest.mark.usefixtures("in_this_process")
def test_long_work_is_called_once(tmp_path: Path) -> None:
    rows = measure_points(points(tmp_path, (3, 1)), SETTINGS, tmp_path / "sizes.json", warm=False)
    assert rows == [{"size": size, "seconds": 100 + size, "peak_bytes": 7} for size in (3, 1)]
    assert calls(tmp_path) == [3, 1]


@pytest.mark.usefixtures("in_this_process")
def test_what_was_measured_before_an_interruption_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "sizes.json"
    path.write_text("the last measurement")
    wanted = points(tmp_path, (1, 2, 3), failing=3)
    with pytest.raises(RuntimeError, match="out of luck"):
        measure_points(wanted, SETTINGS, path, warm=False)
    assert path.read_text() == "the last measurement" and calls(tmp_path) == [1, 2]
    partial = tmp_path / "sizes.json.partial"
    partial.write_text(partial.read_text()[:-9])  # cut short in the last line
    with pytest.raises(RuntimeError):
        measure_points(wanted, SETTINGS, path, warm=False)
    assert calls(tmp_path) == [1, 2, 2]
    (tmp_path / "mended").touch()
    rows = measure_points(wanted, SETTINGS, path, warm=False)
    assert [row["size"] for row in rows] == [1, 2, 3] and json.loads(path.read_text()) == rows
    assert calls(tmp_path) == [1, 2, 2, 3] and not partial.exists()
    measure_points(wanted, SETTINGS, path, warm=False)
    assert calls(tmp_path) == [1, 2, 2, 3, 1, 2, 3]  # a finished one is measured anew


@pytest.mark.usefixtures("in_this_process")
def test_another_setting_or_way_to_measure_is_measured_anew(tmp_path: Path) -> None:
    failing = points(tmp_path, (1, 2), failing=2)

    def calls_of(settings: Settings, warm: bool) -> int:
        before = len(calls(tmp_path)) if (tmp_path / "log").exists() else 0
        with pytest.raises(RuntimeError, match="out of luck"):
            measure_points(failing, settings, tmp_path / "sizes.json", warm)
        return len(calls(tmp_path)) - before

    assert calls_of(SETTINGS, warm=False) == 1
    assert calls_of(replace(SETTINGS, rounds=2), warm=False) == 1
    assert calls_of(replace(SETTINGS, rounds=2), warm=True) == 3
    assert [calls_of(SETTINGS, False), calls_of(replace(SETTINGS, rounds=2), True)] == [0, 0]
