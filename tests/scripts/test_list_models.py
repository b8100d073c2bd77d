"""The table of published weights: complete, readable, and the addresses that other commands use."""

import json
import subprocess
import sys

import pytest

from models.systems import SYSTEMS, published_weights
from scripts.list_models import COLUMNS, main
from scripts.parts.rows.table import PUBLICATIONS
from tests.test_layout import ROOT


def test_the_table_has_a_line_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == list(COLUMNS)
    assert len(lines) == sum(map(len, PUBLISHED.values()))
    # Columns begin where their names do.
    for line in lines:
        assert line[header.index("licence") - 1] == " " and line[header.index("licence")] != " "


PUBLISHED = published_weights()


def test_every_room_of_a_system_lists_its_weights() -> None:
    rooms = {path.parent.name for path in (ROOT / "models").glob("*/published.py")} - {"parts"}
    assert PUBLISHED.keys() == rooms == SYSTEMS.keys()
    names = [(system, file.name) for system, files in PUBLISHED.items() for file in files]
    assert len(set(names)) == len(names)
    assert all(all(file) and file.source.partition("://")[0] in ("hf", "https") for files in PUBLISHED.values()
               for file in files)  # fmt: skip


def test_one_system_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--system", "tvts", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["system"] for row in rows} == {"tvts"}
    assert rows[0]["weights"] == "TVTSv2_ViT_B_32.pth"

    assert main(["--system", "clip"]) == 2
    assert capsys.readouterr().err == "error: --system: there is no clip, only testa, umt, tvts, stoa\n"


def test_the_rows_of_the_paper_take_the_listed_addresses() -> None:
    """An address of the hub as it is, anything else as a path of a file of that name."""
    for system, publication in PUBLICATIONS.items():
        listed = {file.source if file.can_be_fetched else f"checkpoints/{file.name}" for file in PUBLISHED[system]}
        assert {row.released for row in publication.rows if row.released is not None} <= listed


def test_it_answers_without_torch() -> None:
    code = "import sys, scripts.list_models; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
