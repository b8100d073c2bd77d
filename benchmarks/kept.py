"""Rows that stay in a file as soon as they are measured, so that long benchmarks can be done in parts.

A row counts for the same case under the same settings alone; whoever changes the code takes another file.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import Row
from benchmarks.settings import Settings
from benchmarks.table import machine


class KeptRows:
    """The rows of a file, a JSON list of {machine, settings, row}; without a file, none are kept."""

    def __init__(self, path: Path | None, settings: Settings) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(asdict(settings)))
        self.entries: list[dict[str, Any]] = []
        if path is not None and path.exists():
            try:
                self.entries = json.loads(path.read_text(encoding="utf-8"))
            except json.JSONDecodeError as error:
                raise ValueError(f"--keep: {path} holds no JSON ({error}); name another file") from None

    def row(self, name: str) -> Row | None:
        """The kept row of this case under these settings."""
        for entry in self.entries:
            if entry["row"]["name"] == name and entry["settings"] == self.settings:
                spread = {way: (least, most) for way, (least, most) in entry["row"]["spread"].items()}
                return Row(**{**entry["row"], "spread": spread})
        return None

    def add(self, row: Row, settings: Settings) -> None:
        """Keep a row, now."""
        if self.path is None:
            return
        self.entries.append({"machine": machine(settings), "settings": self.settings, "row": asdict(row)})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A file of its own first: an interruption leaves the old one whole.
        unfinished = self.path.with_name(f"{self.path.name}.partial")
        unfinished.write_text(json.dumps(self.entries, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self.path)
