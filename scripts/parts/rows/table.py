"""The published rows of every system, by `model.name`: one file a system, one line here."""

from scripts.parts.rows import stoa, testa, tvts, umt
from scripts.parts.rows.row import Publication, Row, Unobtainable

PUBLICATIONS: dict[str, Publication] = {
    "testa": testa.PUBLICATION,
    "umt": umt.PUBLICATION,
    "tvts": tvts.PUBLICATION,
    "stoa": stoa.PUBLICATION,
}

ROWS: dict[str, Row] = {row.name: row for publication in PUBLICATIONS.values() for row in publication.rows}
UNOBTAINABLE: dict[str, Unobtainable] = {
    name: row for publication in PUBLICATIONS.values() for name, row in publication.unobtainable.items()
}
