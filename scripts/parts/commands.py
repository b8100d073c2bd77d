"""Run the project's commands from its root."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from engine.children import run_child

ROOT = Path(__file__).resolve().parents[2]


def run_command(words: tuple[str, ...], variables: Mapping[str, str] | None = None) -> None:
    """Run `python WORDS` from the repository's root; ValueError if it fails.

    Args:
        variables: environment variables to set besides this process's own.
    """
    environment = {**os.environ, **(variables or {})}
    status = run_child((sys.executable, *words), environment, cwd=ROOT)
    if status:
        raise ValueError(f"{' '.join(words[:6])} ...: ended with status {status}; its output is above")
