"""The rows against the paper's own tables, its GMACs and the configurations; the list and the table made of them."""

from functools import cache
from pathlib import Path

import pytest

from configs.entry_scripts import entry_script
from configs.load import dump, load_to_evaluate
from configs.schema import RetrievalConfig
from models.testa.cost import count
from scripts.parts.commands import ROOT
from scripts.parts.row_configs import read_config
from scripts.parts.rows import evaluated_sets
from scripts.parts.rows.row import Row
from scripts.parts.rows.testa import PAPER, PRETRAINED, PUBLICATION, README, UNOBTAINABLE
from scripts.reproduce.table import listing, markdown

ROWS = {row.name: row for row in PUBLICATION.rows}
DATASETS = {
    "queryd": evaluated_sets.QUERYD,
    "condensed_movies": evaluated_sets.CONDENSED_MOVIES,
    "didemo": evaluated_sets.DIDEMO,
    "activitynet_captions": evaluated_sets.ACTIVITYNET,
    "activitynet_qa": evaluated_sets.ACTIVITYNET_QA,
}
# Numbers as they stand in the tables, line by line: table, data, frames, printed GFLOPs, recalls or accuracy.
PUBLISHED = """
1 queryd 32 420 77.0 91.3 94.6
1 queryd 32 786 79.7 92.6 95.5
1 queryd 96 1381 83.4 93.8 95.3
1 queryd 96 2383 84.2 93.8 95.1
1 condensed_movies 32 420 21.5 42.4 50.7
1 condensed_movies 32 786 23.5 45.4 54.8
1 condensed_movies 96 1381 24.9 46.5 55.1
1 condensed_movies 96 2383 25.5 46.8 56.0
2 didemo 32 420 57.7 83.3 89.4
2 didemo 96 1381 59.2 83.5 89.8
2 activitynet_captions 32 420 51.7 79.1 87.6
2 activitynet_captions 96 1381 53.7 79.9 88.9
3 activitynet_qa 96 - 45.0
4 queryd 32 786 64.4 82.9 86.9
4 didemo 32 786 64.9 88.7 91.8
4 activitynet_captions 32 786 37.1 63.7 75.4
5 queryd 96 2382.5 84.2 93.8 95.1
5 queryd 96 1380.9 71.0 86.1 90.6
5 queryd 96 1381.4 79.2 91.8 95.3
5 queryd 96 1380.9 80.2 91.7 94.6
5 queryd 96 1381.4 83.4 93.8 95.3
5 queryd 96 1303.9 79.5 92.9 95.4
5 queryd 96 1364.0 81.4 93.3 95.1
6 queryd 16 252 59.9 82.2 88.6
6 queryd 16 228 62.4 85.6 91.1
6 queryd 16 450 66.1 86.4 90.4
6 queryd 16 392 75.0 91.1 93.8
"""


@cache
def gmacs_of(config: str) -> float:
    row = next(row for row in ROWS.values() if row.config == config)
    settings = read_config(row)
    return count(settings.model, settings.video, settings.aggregation).gmacs


def published() -> list[tuple[str, str, int, str, tuple[float, ...]]]:
    lines = [line.split() for line in PUBLISHED.strip().splitlines()]
    return [(table, data, int(frames), gflops, tuple(map(float, rest))) for table, data, frames, gflops, *rest in lines]


def rows_of(table: str, data: str, frames: int, numbers: tuple[float, ...]) -> list[Row]:
    return [
        row
        for row in ROWS.values()
        if table in row.tables and row.dataset is DATASETS[data] and tuple(row.expected[PAPER].values()) == numbers
        and f"_f{frames}" in row.name
    ]  # fmt: skip


@pytest.mark.parametrize(("table", "data", "frames", "gflops", "numbers"), published())
def test_each_published_row_is_one_of_ours(
    table: str, data: str, frames: int, gflops: str, numbers: tuple[float, ...]
) -> None:
    (row,) = rows_of(table, data, frames, numbers)
    if gflops != "-":
        # Printed rounded up, or down, or cut off.
        assert abs(row.gmacs - float(gflops)) < 1


def test_there_are_no_other_rows() -> None:
    ours = sum(len(row.tables) for row in ROWS.values())
    assert ours == len(published()) and len(ROWS) == 25
    assert list(UNOBTAINABLE) == ["blip_zeroshot_f32"]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_the_configuration_is_the_row(row: Row) -> None:
    config = read_config(row)
    assert f"_f{config.video.num_frames}" in row.name
    assert gmacs_of(row.config) == pytest.approx(row.gmacs, abs=0.01)
    assert row.dataset is DATASETS[config.data.dataset] and entry_script(config.task) == f"train_{config.task}.py"
    tested = config.data.test_split or config.data.eval_split
    assert tested == row.dataset.split


@pytest.mark.parametrize("name", ["queryd_f96_prune_untrained", "queryd_f96_merge_untrained", "didemo_zeroshot_f32"])
def test_what_is_evaluated_otherwise_than_trained_is_as_its_file_says(name: str, tmp_path: Path) -> None:
    """A checkpoint brings its own frames and aggregation, over which these files have to stand."""
    trained = ROWS[ROWS[name].trained_as or "didemo_f32"]
    dump(read_config(trained), tmp_path / "config.yaml")
    evaluated = load_to_evaluate(RetrievalConfig, ROOT / ROWS[name].config, [f"checkpoint={tmp_path}"])
    expected = read_config(ROWS[name])
    assert (evaluated.aggregation, evaluated.video) == (expected.aggregation, expected.video)
    assert evaluated.aggregation != read_config(trained).aggregation


def test_rows_from_blip_are_those_of_table_6_and_readme_numbers_come_with_weights() -> None:
    assert {name for name, row in ROWS.items() if row.start_owner == "BLIP's"} == {
        name for name, row in ROWS.items() if row.tables == ("6",)
    }
    for row in ROWS.values():
        assert set(row.expected) == ({PAPER, README} if row.released not in (None, PRETRAINED) else {PAPER})
        assert row.trained_as is None or row.released is None


def test_the_list_names_every_row_with_its_numbers() -> None:
    lines = listing(PUBLICATION)
    assert len(lines) == 1 + len(ROWS) + len(UNOBTAINABLE)
    (line,) = (line for line in lines if line.startswith("queryd_f96_frames "))
    assert "1303.874" in line and "79.5 / 92.9 / 95.4" in line and "trains it" in line
    assert "cannot be reproduced" in lines[-1] and "562.6" in lines[-1]


def test_the_run_document_has_the_table_of_the_rows() -> None:
    text = (ROOT / "docs" / "RUN.md").read_text(encoding="utf-8")
    table = "\n".join(markdown(PUBLICATION))
    assert table in text, (
        "write the lines of `python -m scripts.reproduce --markdown` between the markers of docs/RUN.md"
    )
    assert "77.0 / 91.3 / 94.6; README: 77.0 / 90.8 / 92.6" in table and "57.7 / 83.3 / 89.4;" not in table
