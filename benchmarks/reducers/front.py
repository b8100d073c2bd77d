"""Fronts of quality against milliseconds, of each encoder and over all, from the rows of any number of comparisons.

    python -m benchmarks.reducers.front outputs/flashes_joint outputs/flashes_umt --out outputs/front
    python -m benchmarks.reducers.front outputs/flashes_joint my_rows.json --out outputs/front

Each is a comparison's folder, or a file of rows like its rows.json; `benchmarks/reducers/front_rows.py` describes them,
so that rows of other code can be added by hand. OUT then holds front.md (all rows; those on a front are marked),
front.json (all rows again, as they came) and a figure of each encoder and of all.

A row is on the front if no other has more recall in as little time.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.reducers.__main__ import ROWS
from benchmarks.reducers.figures import write
from benchmarks.reducers.front_figures import draw_all, draw_encoder
from benchmarks.reducers.front_rows import FORMAT, FrontRow, read_rows
from benchmarks.reducers.report import STAGE_NAMES, changed_by, spread
from engine.checkpoint_folder import replacing_file, write_json
from engine.command_line import exit_status

COLUMNS = ("reducer", "stage", "matched by", "schedule", "GMACs", "ms", "MiB", "recall", "recall changes", "answers")
PRICES = {None: "", "gmacs": "GMACs", "milliseconds": "ms"}


def mean(values: Sequence[float]) -> float:
    """The mean of some values."""
    return sum(values) / len(values)


def on_front(rows: Sequence[FrontRow]) -> list[FrontRow]:
    """The rows that no other beats in time and recall at once, the fastest first; rows without a time are on none."""
    timed = [row for row in rows if row.milliseconds is not None]
    best: list[FrontRow] = []
    for row in sorted(timed, key=lambda row: (row.milliseconds, -mean(row.recall))):
        if not best or mean(row.recall) > mean(best[-1].recall):
            best.append(row)
    return best


def by_encoder(rows: Sequence[FrontRow]) -> dict[str, list[FrontRow]]:
    """The rows of each encoder, in the order in which encoders come; those with the most seeds say what is compared."""
    found: dict[str, list[FrontRow]] = {}
    for row in rows:
        found.setdefault(row.encoder, []).append(row)
    return found


def table(rows: Sequence[FrontRow]) -> list[str]:
    """A markdown table of each encoder; `*` marks its own front, `**` that over all encoders."""
    best_of_all = on_front(rows)
    lines: list[str] = []
    for encoder, own in by_encoder(rows).items():
        best = on_front(own)
        lines += ["", f"### {encoder}", "", f"| front | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
        for row in sorted(own, key=lambda row: (row.milliseconds is None, row.milliseconds or row.gmacs)):
            mark = "**" if row in best_of_all else "*" if row in best else ""
            numbers = ["" if value is None else f"{value:.1f}" for value in (row.milliseconds, row.mebibytes)]
            stage = "-" if row.is_reference else STAGE_NAMES[row.stage]
            cells = [row.reducer, stage, PRICES[row.matched_by], row.schedule, f"{row.gmacs:.3f}", *numbers]
            quality = [spread(row.recall), changed_by(row.changes.get("recall")), spread(row.answers)]
            lines.append(f"| {' | '.join([mark.replace('*', '&#42;'), *cells, *quality])} |")
    return lines[1:]


def file_name(encoder: str) -> str:
    """An encoder's name as a part of a file's."""
    return re.sub(r"[^a-z0-9]+", "_", encoder.lower()).strip("_")


def main(arguments: list[str] | None = None) -> None:
    """Write table, figures and rows; a file that cannot be read ends it with one line and status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, metavar="FOLDER_OR_FILE", help="comparisons, files of rows")
    parser.add_argument("--out", type=Path, default=Path("outputs/front"), help="folder to write (%(default)s)")
    options = parser.parse_args(arguments)

    with exit_status():
        rows: list[FrontRow] = []
        for source in options.sources:
            rows += read_rows(source / ROWS if source.is_dir() else source)

        options.out.mkdir(parents=True, exist_ok=True)
        lines = table(rows)
        with replacing_file(options.out / "front.md") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        write_json(options.out / "front.json", {"format": FORMAT, "rows": [asdict(row) for row in rows]})

        figures = {
            f"front_{file_name(name)}": draw_encoder(name, own, on_front(own)) for name, own in by_encoder(rows).items()
        }
        write({**figures, "front": draw_all(by_encoder(rows), on_front(rows))}, options.out)
        print("\n".join(lines))


if __name__ == "__main__":
    main()
