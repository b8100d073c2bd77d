"""Fronts as figures: recall against milliseconds, with every point named where it lies."""

from collections.abc import Mapping, Sequence
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.reducers.front_rows import FrontRow

ROOM_FOR_NAMES = 0.2
"""Of the width, beyond the last point."""
COLOURS = (*(f"C{index}" for index in range(10)), "navy", "maroon", "darkgreen", "black", "indigo", "teal")
MARKS = "triangles: fine-tuned with it; hollow: schedule chosen by its milliseconds, not its GMACs"


def draw_encoder(encoder: str, rows: Sequence[FrontRow], front: Sequence[FrontRow]) -> Figure:
    """All rows of one encoder at their time and recall; bars are the 95 % interval of the change against none."""
    figure = Figure(figsize=(8.5, 5.6), layout="constrained")
    panel = figure.subplots()
    timed = _distinct(rows)
    names = dict.fromkeys(row.reducer for row in timed)
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    for row in timed:
        _point(panel, row, colours[row.reducer])
    _step(panel, front, "0.3", "the front: most recall for the time")
    _reference_lines(panel, timed)
    _name_points(panel, [(row, row.reducer, colours[row.reducer]) for row in timed])

    num_seeds = max((len(row.seeds) for row in rows), default=0)
    panel.set_title(f"{encoder}: what each way to take tokens away costs and keeps", loc="left")
    seeds = f"{num_seeds} seed{'s' * (num_seeds != 1)}"
    _axes(panel, f"{seeds}; bars: 95 % interval of the change against none;\n{MARKS}")
    return figure


def draw_all(by_encoder: Mapping[str, Sequence[FrontRow]], front: Sequence[FrontRow]) -> Figure:
    """All encoders in one panel, a colour each; named are those on the front and those that take nothing away."""
    figure = Figure(figsize=(9, 5.8), layout="constrained")
    panel = figure.subplots()
    named = []
    best = {_place(row) for row in front}

    for index, (encoder, rows) in enumerate(by_encoder.items()):
        timed = _distinct(rows)
        colour = COLOURS[index % len(COLOURS)]
        for row in timed:
            _point(panel, row, colour, bars=False)
        panel.plot([], [], "o", color=colour, label=encoder)
        named += [(row, row.reducer, colour) for row in timed if row.is_reference or _place(row) in best]

    _step(panel, front, "0.3", "the front over all")
    _name_points(panel, named)
    panel.set_title("All encoders: recall for the time of encoding one video", loc="left")
    _axes(panel, f"stars: nothing taken away; {MARKS}")
    return figure


def _place(row: FrontRow) -> tuple[str, str, str, float | None]:
    """What two rows have in common that are one and the same run."""
    return row.encoder, row.reducer, row.stage, row.milliseconds


def _distinct(rows: Sequence[FrontRow]) -> list[FrontRow]:
    """The rows with a time; where both ways to choose a schedule chose the same, it is drawn once."""
    return list({_place(row): row for row in reversed(rows) if row.milliseconds is not None}.values())[::-1]


def _point(panel: Axes, row: FrontRow, colour: str, bars: bool = True) -> None:
    recall, change = mean(row.recall), row.changes.get("recall")
    ends = [[change[0] - change[1]], [change[2] - change[0]]] if bars and change else None
    panel.errorbar(
        [row.milliseconds or 0.0],
        [recall],
        yerr=ends,
        fmt="*" if row.is_reference else "o" if row.stage == "off_the_shelf" else "^",
        markersize=13 if row.is_reference else 7,
        markerfacecolor="white" if row.matched_by == "milliseconds" else colour,
        color=colour,
        elinewidth=0.8,
        capsize=2,
        alpha=0.9,
    )


def _step(panel: Axes, front: Sequence[FrontRow], colour: str, label: str) -> None:
    """The front as steps: at a time, the most recall that can be had in it."""
    if front:
        times = [row.milliseconds or 0.0 for row in front]
        panel.step(times, [mean(row.recall) for row in front], where="post", color=colour, linewidth=1, label=label)


def _reference_lines(panel: Axes, rows: Sequence[FrontRow]) -> None:
    for row in rows:
        if row.is_reference:
            panel.axhline(mean(row.recall), color="0.7", linestyle=":", linewidth=1)
            panel.axvline(
                (row.milliseconds or 0.0) / 2, color="0.7", linestyle="--", linewidth=1, label="half the time"
            )


def _name_points(panel: Axes, named: Sequence[tuple[FrontRow, str, str]]) -> None:
    """Write names beside their points, those of near points below each other, with a line to a point further off."""
    panel.margins(0.1)
    (left, right), (bottom, top) = panel.get_xlim(), panel.get_ylim()
    right += ROOM_FOR_NAMES * (right - left)
    panel.set_xlim(left, right)
    panel.set_ylim(bottom, top)

    taken: list[tuple[float, float]] = []
    known: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row, name, colour in sorted(named, key=lambda one: -mean(one[0].recall)):
        x = ((row.milliseconds or 0.0) - left) / (right - left)
        y = (mean(row.recall) - bottom) / (top - bottom)
        # Points of one reducer have one colour: close to each other, one name serves them.
        same = known.setdefault((name, colour), [])
        if any(abs(x - other_x) < 0.15 and abs(y - other_y) < 0.15 for other_x, other_y in same):
            continue
        same.append((x, y))

        height = y
        while any(abs(x - other_x) < 0.17 and abs(height - other_y) < 0.035 for other_x, other_y in taken):
            height -= 0.012
        taken.append((x, height))
        panel.annotate(
            name,
            (x, y),
            (x + 0.012, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            fontsize=8,
            color=colour,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6} if y - height > 0.03 else None,
        )


def _axes(panel: Axes, note: str) -> None:
    panel.set_xlabel(f"milliseconds to encode one video, one thread of a CPU\n({note})", fontsize=9)
    panel.set_ylabel("recall: average of R@1, R@5, R@10 (%)")
    panel.grid(visible=True, alpha=0.25)
    panel.legend(fontsize=8, loc="lower right")
