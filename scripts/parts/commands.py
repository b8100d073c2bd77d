"""Run the project's commands from its root."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_command(words: tuple[str, ...]) -> None:
    """Run `python WORDS` from the repository's root; ValueError if it fails."""
    status = subprocess.run((sys.executable, *words), cwd=ROOT, check=False).returncode
    if status:
        raise ValueError(f"{' '.join(words[:6])} ...: ended with status {status}; what it said is above")
