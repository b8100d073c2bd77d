"""New paths of configuration files that moved, for the error message about a missing file."""

from pathlib import Path

MOVED_FOLDERS = {
    "pretrain": "testa/pretrain",
    "retrieval": "testa/retrieval",
    "vqa": "testa/vqa",
    "caption": "testa/caption",
}
"""Old folders below `configs/`, from when TESTA was the only system, and their new places."""
OF_ALL_TASKS = "testa"
"""The new folder of the bases and recipes that used to lie in `configs/` itself."""


def new_path(path: Path) -> Path | None:
    """The current path of the configuration file that used to be at `path`; None if it did not move."""
    if "configs" not in path.parts:
        return None

    position = len(path.parts) - 1 - path.parts[::-1].index("configs")
    root = Path(*path.parts[: position + 1])
    folder, *rest = path.relative_to(root).parts or ("",)

    # A file in a subfolder moved with its folder; a file in `configs/` itself moved to TESTA's folder.
    moved = root / MOVED_FOLDERS.get(folder, "") if rest else root / OF_ALL_TASKS / folder
    moved = moved.joinpath(*rest)
    return moved if moved != path and moved.is_file() else None
