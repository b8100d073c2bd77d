"""The files of a folder that somebody names, such as one of videos."""

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(top: Path) -> Iterator[str]:
    """Paths, begun with `top`, of all files but hidden ones; links to folders are followed, each folder once."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link may lead back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(folder, name) for name in names if not name.startswith("."))
