"""Where configuration files lie now that used to lie elsewhere, for the error message about a missing file."""

from pathlib import Path

MOVED_FOLDERS = {
    "pretrain": "testa/pretrain",
    "retrieval": "testa/retrieval",
    "vqa": "testa/vqa",
    "caption": "testa/caption",
}
"""Folders below `configs/`, from the time when TESTA was the only system."""
OF_ALL_TASKS = "testa"
"""The folder of the bases and recipes that lay in `configs/` itself."""


def new_path(path: Path) -> Path | None:
    """Today's path of the configuration file that used to be at `path`; None if it has not moved."""
    if "configs" not in path.parts:
        return None

    position = len(path.parts) - 1 - path.parts[::-1].index("configs")
    root = Path(*path.parts[: position + 1])
    folder, *rest = path.relative_to(root).parts or ("",)

    moved = root / MOVED_FOLDERS.get(folder, "") if rest else root / OF_ALL_TASKS / folder
    moved = moved.joinpath(*rest)
    return moved if moved != path and moved.is_file() else None
