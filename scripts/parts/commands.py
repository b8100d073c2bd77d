"""Run the project's commands from its root."""

import os
import shlex
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


def run_printed(words: tuple[str, ...]) -> None:
    """Print one of the project's commands and run it; ValueError if it fails."""
    print(f"\n$ {shlex.join(('python', *words))}", flush=True)
    run_command(words)
