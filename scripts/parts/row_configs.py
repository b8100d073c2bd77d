"""What a published row is run with: its configuration, and the weights it begins with."""

from collections.abc import Sequence
from pathlib import Path

from configs.load import load_any
from configs.schema import CONFIG_CLASSES, RunConfig
from models.systems import published_weights
from scripts.parts.commands import ROOT
from scripts.parts.rows.row import Publication, Row
from scripts.parts.rows.table import PUBLICATIONS, ROWS


def read_config(row: Row, overrides: Sequence[str] = ()) -> RunConfig:
    """The row's configuration under overrides."""
    return load_any(CONFIG_CLASSES, ROOT / row.config, list(overrides))


def publication_of(row: Row) -> Publication:
    """The publication whose row it is: that of its configuration's system."""
    return PUBLICATIONS[read_config(row).model.name]


def published_at(file: str) -> str | None:
    """Where the weights with this file's name are published; None if they are in no list of a system."""
    sources = {weights.name: weights.source for listed in published_weights().values() for weights in listed}
    return sources.get(Path(file).name)


def trained_row(row: Row) -> Row:
    """The row whose training gives this row its weights: mostly itself."""
    return ROWS[row.trained_as] if row.trained_as is not None else row


def default_weights(row: Row) -> str:
    """The weights that a row begins with unless others are asked for: released ones, or those to train from."""
    return row.released if row.released is not None else configured_start(trained_row(row))


def configured_start(row: Row) -> str:
    """The weights that training begins with by the row's configuration."""
    start = read_config(row).checkpoint
    assert start is not None, f"{row.config} names no checkpoint"
    return start
