"""What a row of published results is: what is run, on which videos, and what should come out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.names import run_name

RETRIEVAL_METRICS = ("t2v_r1", "t2v_r5", "t2v_r10")
"""What papers call R@1, R@5 and R@10: text to video, after reranking where there is any."""


SECOND_HAND = "second-hand"
"""Ends the name of a source that only repeats what others measured."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedSet:
    """What a row is evaluated on.

    Attributes:
        title: its name as people write it.
        split: the honest name of the part that the published numbers are of, as results.json has it; other_split:
            another name under which the same videos can be read.
        videos, texts: how many videos, and paragraphs or questions, that part officially has; None: not known.
        counted: where these counts are from, or why there are none.
        is_challenge: the pairing is the challenge server's secret, so that only a submission can be written.
    """

    title: str
    split: str
    videos: int | None
    texts: int | None
    counted: str
    other_split: str | None = None
    is_challenge: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of published results.

    Attributes:
        tables: where it stands: the paper's tables, or a page of the release.
        label: what the publication calls it.
        dataset: what it is evaluated on.
        config: the file that says all of it, from the repository's root.
        gmacs: of the video encoder for one video, to three decimals, None where nobody has counted; published_gmacs:
            as printed.
        expected: the published metrics by the name of their source; one source has to be met. A source that only
            repeats what others measured ends with `SECOND_HAND`. Empty: no number is published.
        released: the weights to evaluate, where there are any: an address of the hub, or a path below `checkpoints/`
            of a file that `python -m scripts.list_models` says where to fetch. Without any they are trained.
        trained_as: the name of the row whose training gives the weights, where that is another.
        start_owner: whose weights training starts from, as a possessive, where they are of another project.
        is_zero_shot: the pre-trained weights are evaluated as they are.
        note: what else one has to know.
    """

    tables: tuple[str, ...]
    label: str
    dataset: EvaluatedSet
    config: str
    gmacs: float | None
    published_gmacs: str = "not printed"
    expected: dict[str, dict[str, float]]
    released: str | None = None
    trained_as: str | None = None
    start_owner: str | None = None
    is_zero_shot: bool = False
    note: str | None = None

    @property
    def name(self) -> str:
        """What the command line calls it: the name of its configuration."""
        return run_name(Path(self.config))

    @property
    def place(self) -> str:
        """Where it stands, as one writes it: "Table 1, 5", or a page's name."""
        places = ", ".join(self.tables)
        return f"Table {places}" if self.tables[0].isdigit() else places


@dataclass(frozen=True, kw_only=True)
class Unobtainable:
    """A row that nobody can run again: its table, what the publication calls it, its numbers, and why."""

    table: str
    label: str
    numbers: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Publication:
    """All rows of one system.

    Attributes:
        title: the system's name as people write it.
        rows: in the order in which they are listed.
        unobtainable: rows that cannot be run, by name.
        recipes: what --recipe puts over a row's file, as a file from the repository's root; None is nothing. The first
            is the default.
        document: the page below the repository's root that has the table of the rows.
    """

    title: str
    rows: Sequence[Row]
    document: str
    unobtainable: Mapping[str, Unobtainable] = field(default_factory=dict)
    recipes: Mapping[str, str | None] = field(default_factory=lambda: {"release": None})


def recalls(r1: float, r5: float, r10: float) -> dict[str, float]:
    """Metrics by their names in results.json."""
    return dict(zip(RETRIEVAL_METRICS, (r1, r5, r10), strict=True))
