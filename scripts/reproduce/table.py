"""The rows as people read them: the list of the command, and the table of docs/RUN.md."""

from scripts.parts.paper_rows import DATASETS, PRETRAINED, ROWS, UNOBTAINABLE, Row

BEGIN = "<!-- rows: written by `python -m scripts.reproduce --markdown` -->"
END = "<!-- end of rows -->"


def listing() -> list[str]:
    """One line a row, and one for each that cannot be had."""
    width = max(map(len, (*ROWS, *UNOBTAINABLE)))
    lines = [f"{'row':<{width}}  table  {'what':<34}{'data':<28}{'GMACs':>9}  {'published':<22}weights"]
    for name, row in ROWS.items():
        data = f"{DATASETS[row.dataset].title} {DATASETS[row.dataset].split}"
        lines.append(
            f"{name:<{width}}  {', '.join(row.tables):<5}  {row.label:<34}{data:<28}{row.gmacs:9.3f}  "
            f"{_metrics(next(iter(row.expected.values()))):<22}{_weights(row)}"
        )
    lines += [f"{name:<{width}}  {row.table:<5}  {row.label}: {row.reason}" for name, row in UNOBTAINABLE.items()]
    return lines


def markdown() -> list[str]:
    """The table of docs/RUN.md, between its markers."""
    lines = [
        BEGIN,
        "| row | table | what | evaluated on | N | GMACs | published | weights |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in ROWS.items():
        data = DATASETS[row.dataset]
        published = {source: _metrics(metrics) for source, metrics in row.expected.items()}
        paper = next(iter(published.values()))
        # The README's numbers are shown only where they differ from the paper's.
        others = "".join(f"; {source}: {text}" for source, text in published.items() if text != paper)
        cells = (
            f"`{name}`", ", ".join(row.tables), row.label, f"{data.title} {data.split}", _official(row),
            f"{row.gmacs:.1f}", f"{paper}{others}", _weights(row),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")

    lines += [
        f"| `{name}` | {row.table} | {row.label} | | | | {row.numbers} | {row.reason} |"
        for name, row in UNOBTAINABLE.items()
    ]
    return [*lines, END]


def _metrics(metrics: dict[str, float]) -> str:
    return " / ".join(f"{value:.1f}" for value in metrics.values())


def _official(row: Row) -> str:
    data = DATASETS[row.dataset]
    if data.videos is None:
        return "not known"
    return f"{data.videos}" if data.texts == data.videos else f"{data.texts} about {data.videos} videos"


def _weights(row: Row) -> str:
    if row.is_zero_shot:
        return f"released: {PRETRAINED.rpartition('/')[2]}"
    if row.released is not None:
        return f"released: {row.released.rpartition('/')[2]}"
    if row.trained_as is not None:
        return f"none released: trains {row.trained_as}, evaluates it otherwise"
    return "none released: trains it" + (" from BLIP's" if row.from_blip else "")
