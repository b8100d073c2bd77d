"""The rows as people read them: the list of the command, and the tables of the documents."""

from scripts.parts.rows.row import SECOND_HAND, Publication, Row

BEGIN = "<!-- rows: written by `python -m scripts.reproduce --markdown` -->"
END = "<!-- end of rows -->"
NARROWEST = (5, 34, 28, 22)
"""Columns of the list are at least so wide, so that the lists of several systems look alike."""


def listing(publication: Publication) -> list[str]:
    """One line a row, and one for each that cannot be had."""
    cells = [("table", "what", "data", "published")]
    for row in publication.rows:
        data = f"{row.dataset.title} {row.dataset.split}"
        cells.append((", ".join(row.tables), row.label, data, _first_published(row)))

    # Columns without two spaces in the format have them in their width.
    places, *wide = (max(map(len, column)) for column in zip(*cells, strict=True))
    needed = (places, *(width + 2 for width in wide))
    place_width, label_width, data_width, published_width = map(max, zip(needed, NARROWEST, strict=True))
    name_width = max(map(len, (*(row.name for row in publication.rows), *publication.unobtainable)))

    names = ("row", *(row.name for row in publication.rows))
    costs = ("GMACs", *(_gmacs(row, 3) for row in publication.rows))
    weights = ("weights", *map(_weights, publication.rows))
    lines = [
        f"{name:<{name_width}}  {place:<{place_width}}  {label:<{label_width}}{data:<{data_width}}{cost:>9}  "
        f"{published:<{published_width}}{weight}"
        for name, (place, label, data, published), cost, weight in zip(names, cells, costs, weights, strict=True)
    ]
    for name, missing in publication.unobtainable.items():
        lines.append(f"{name:<{name_width}}  {missing.table:<{place_width}}  {missing.label}: {missing.reason}")
    return lines


def markdown(publication: Publication) -> list[str]:
    """The table of the publication's document, between its markers."""
    lines = [
        BEGIN,
        "| row | table | what | evaluated on | N | GMACs | published | weights |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in publication.rows:
        published = {source: _metrics(metrics) for source, metrics in row.expected.items()}
        first = next(iter(published.values()), "")
        # Further sources are shown only where their numbers differ from the first one's.
        others = "".join(f"; {source}: {text}" for source, text in published.items() if text != first)
        cells = (
            f"`{row.name}`", ", ".join(row.tables), row.label, f"{row.dataset.title} {row.dataset.split}",
            _official(row), _gmacs(row, 1), f"{_first_published(row)}{others}", _weights(row),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")

    lines += [
        f"| `{name}` | {row.table} | {row.label} | | | | {row.numbers} | {row.reason} |"
        for name, row in publication.unobtainable.items()
    ]
    return [*lines, END]


def _first_published(row: Row) -> str:
    for source, metrics in row.expected.items():
        return _metrics(metrics) + (f" ({SECOND_HAND})" if source.endswith(SECOND_HAND) else "")
    return "none"


def _gmacs(row: Row, decimals: int) -> str:
    return "not known" if row.gmacs is None else f"{row.gmacs:.{decimals}f}"


def _metrics(metrics: dict[str, float]) -> str:
    return " / ".join(f"{value:.1f}" for value in metrics.values())


def _official(row: Row) -> str:
    data = row.dataset
    if data.videos is None:
        return "not known"
    return f"{data.videos}" if data.texts in (data.videos, None) else f"{data.texts} about {data.videos} videos"


def _weights(row: Row) -> str:
    if row.released is not None:
        return f"released: {row.released.rpartition('/')[2]}"
    if row.trained_as is not None:
        return f"none released: trains {row.trained_as}, evaluates it otherwise"
    return "none released: trains it" + (f" from {row.start_owner}" if row.start_owner is not None else "")
