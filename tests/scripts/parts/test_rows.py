"""The published rows of every system: named once, run by a configuration of that system, listed in a document."""

import pytest

from configs.schema import MODELS
from models.systems import count
from scripts.parts.commands import ROOT
from scripts.parts.row_configs import publication_of, read_config
from scripts.parts.rows.table import PUBLICATIONS, ROWS, UNOBTAINABLE
from scripts.reproduce.__main__ import listed
from scripts.reproduce.table import markdown


def test_rows_have_names_of_their_own_and_systems_that_there_are() -> None:
    assert len(ROWS) == sum(len(publication.rows) for publication in PUBLICATIONS.values())
    assert not ROWS.keys() & UNOBTAINABLE.keys() and PUBLICATIONS.keys() <= MODELS.keys()
    assert all(row.trained_as is None or row.trained_as in ROWS for row in ROWS.values())


@pytest.mark.parametrize("system", PUBLICATIONS)
def test_each_row_is_of_its_system_and_costs_what_it_says(system: str) -> None:
    counted: dict[object, float] = {}
    for row in PUBLICATIONS[system].rows:
        config = read_config(row)
        assert config.model.name == system and publication_of(row) is PUBLICATIONS[system]
        assert (config.data.test_split or config.data.eval_split) in (row.dataset.split, row.dataset.other_split)
        assert row.is_zero_shot is False or row.released is not None

        # Many rows share an encoder; counting one takes a moment.
        size = (config.model, config.video, config.aggregation)
        if size not in counted:
            counted[size] = count(*size).gmacs
        assert row.gmacs is None or counted[size] == pytest.approx(row.gmacs, abs=0.01), row.name


@pytest.mark.parametrize("system", PUBLICATIONS)
def test_the_document_has_the_table_of_the_rows(system: str) -> None:
    publication = PUBLICATIONS[system]
    text = (ROOT / publication.document).read_text(encoding="utf-8")
    assert "\n".join(markdown(publication)) in text, (
        f"write the lines of `python -m scripts.reproduce --markdown --system {system}` between the markers of "
        f"{publication.document}"
    )


def test_one_system_can_be_listed_and_all_are_listed_without_a_name() -> None:
    everything = listed(None, as_markdown=False)
    for system, publication in PUBLICATIONS.items():
        lines = listed(system, as_markdown=False)
        assert len(lines) == 1 + len(publication.rows) + len(publication.unobtainable)
        assert "\n".join(lines) in "\n".join(everything)
