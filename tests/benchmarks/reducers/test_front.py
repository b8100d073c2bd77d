"""Rows of comparisons, and rows added by hand, in one table and in figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reducers import front
from benchmarks.reducers.front import on_front
from benchmarks.reducers.front_figures import draw_all, draw_encoder
from benchmarks.reducers.front_rows import FORMAT, FrontRow, read_rows


def row(reducer: str, milliseconds: float | None, *recall: float, **more: Any) -> dict[str, Any]:
    return {
        "encoder": "ours",
        "reducer": reducer,
        "stage": "off_the_shelf",
        "matched_by": "gmacs",
        "schedule": "3 tokens a block",
        "gmacs": 0.5,
        "milliseconds": milliseconds,
        "mebibytes": None,
        "seeds": list(range(len(recall))),
        "recall": list(recall),
        "answers": [],
        "changes": {},
        **more,
    }


ROWS = [
    row("none", 10.0, 60.0, 62.0, stage="fine_tuned", matched_by=None, mebibytes=3.0),
    row("tome", 6.0, 58.0, 58.0, changes={"recall": [-3.0, -4.0, -2.0]}),
    row("slow", 8.0, 50.0, 50.0),  # tome is faster and better
    row("quick", 2.0, 40.0, 42.0, matched_by="milliseconds"),
    row("untimed", None, 90.0, 90.0),
]


def write(path: Path, rows: list[dict[str, Any]], **more: Any) -> Path:
    path.write_text(json.dumps({"format": FORMAT, "rows": rows, **more}))
    return path


def test_the_front_is_what_nothing_beats_in_time_and_recall() -> None:
    rows = [FrontRow(**one) for one in ROWS]
    assert [one.reducer for one in on_front(rows)] == ["quick", "tome", "none"]
    twice = [*rows, FrontRow(**row("as good", 6.0, 58.0, 58.0)), FrontRow(**row("better", 6.0, 59.0, 58.0))]
    assert [one.reducer for one in on_front(twice)] == ["quick", "better", "none"]


def test_a_row_added_by_hand_is_in_table_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "comparison"
    folder.mkdir()
    write(folder / "rows.json", ROWS)
    mine = write(tmp_path / "mine.json", [row("my own", 1.5, 61.0, encoder="another")])
    out = tmp_path / "out"
    front.main([str(folder), str(mine), "--out", str(out)])

    table = (out / "front.md").read_text()
    assert table.strip() == capsys.readouterr().out.strip()
    lines = {line.split(" | ")[1]: line for line in table.splitlines() if line.startswith("| ")}
    assert lines["my own"].startswith(
        "| &#42;&#42; | my own | off the shelf | GMACs | 3 tokens a block | 0.500 | 1.5 |"
    )
    # Over all encoders nothing else is as good in as little time; on its own encoder's front tome is.
    assert lines["tome"].startswith("| &#42; | tome") and "| -3.0 [-4.0, -2.0] |" in lines["tome"]
    assert lines["slow"].startswith("|  | slow") and lines["untimed"].startswith("|  | untimed")
    assert "### ours" in table and "### another" in table

    assert {path.name for path in out.iterdir()} == {
        "front.md", "front.json", "front.png", "front_ours.png", "front_another.png"
    }  # fmt: skip
    assert [one.reducer for one in read_rows(out / "front.json")] == [*(one["reducer"] for one in ROWS), "my own"]


def test_the_figures_name_every_point_where_it_lies() -> None:
    rows = [FrontRow(**one) for one in ROWS]
    (panel,) = draw_encoder("ours", rows, on_front(rows)).axes
    points = [tuple(float(value[0]) for value in bar.lines[0].get_data()) for bar in panel.containers]
    assert points == [(10.0, 61.0), (6.0, 58.0), (8.0, 50.0), (2.0, 41.0)]
    assert sorted(text.get_text() for text in panel.texts) == ["none", "quick", "slow", "tome"]

    (panel,) = draw_all({"ours": rows}, on_front(rows)).axes
    assert sorted(text.get_text() for text in panel.texts) == ["none", "quick", "tome"]


def test_one_name_serves_points_of_a_reducer_that_lie_close() -> None:
    rows = [FrontRow(**one) for one in (*ROWS, row("tome", 6.1, 57.5), row("quick", 8.5, 45.0))]
    (panel,) = draw_encoder("ours", rows, []).axes
    assert sorted(text.get_text() for text in panel.texts) == ["none", "quick", "quick", "slow", "tome"]

    # Not those of two encoders, which differ in colour.
    by_encoder = {name: [FrontRow(**{**one, "encoder": name}) for one in ROWS] for name in ("ours", "theirs")}
    (panel,) = draw_all(by_encoder, []).axes
    assert [text.get_text() for text in panel.texts] == ["none", "none"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stage": "shelf"}, "row 1: stage 'shelf' is not"),
        ({"matched_by": "ms"}, "row 1: matched_by 'ms'"),
        ({"recall": [1.0, 2.0]}, "row 1: recall needs one value for each"),
        ({"gmacs": None}, "row 1: gmacs is null"),
        ({"changes": {"recall": [1.0]}}, "row 1: changes have a mean"),
        ({"surplus": 1}, "row 1: expected exactly encoder, reducer"),
    ],
)
def test_rows_that_are_wrong_are_named(
    change: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "mine.json", [{**row("mine", 1.0, 50.0), **change}])
    with pytest.raises(SystemExit) as stopped:
        front.main([str(path), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_rows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    for path, said in ((tmp_path / "a.json", "not rows of format 1"), (tmp_path / "b.json", "cannot be read")):
        with pytest.raises(ValueError, match=said):
            read_rows(path)
