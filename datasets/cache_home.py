"""Where this project keeps what it can make or fetch again."""

import os
from pathlib import Path


def cache_home() -> Path:
    """The project's folder in the user's cache, which XDG_CACHE_HOME moves."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "testa"
