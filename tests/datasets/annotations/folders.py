"""Small folders of annotations, and what every error about them has to be."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def write_lines(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def error_of(call: Callable[[], object]) -> str:
    """The text of the ValueError that a call ends in, which is one line."""
    with pytest.raises(ValueError) as error:
        call()
    text = str(error.value)
    assert text and "\n" not in text
    return text
