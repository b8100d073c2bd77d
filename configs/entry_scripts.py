"""Which script in the repository's root trains and evaluates a task."""

from pathlib import Path
from typing import Any


def entry_script(task: object) -> str | None:
    """The script's name, `pretrain.py` or `train_TASK.py`; None if the task has none."""
    name = "pretrain.py" if task == "pretrain" else f"train_{task}.py"
    return name if (Path(__file__).resolve().parent.parent / name).is_file() else None


def refuse_other_task(expected: str | None, settings: dict[Any, Any], path: Path) -> None:
    """Raise a `ValueError` that names the right script if `settings`, from the file `path`, belong to another task."""
    task = settings.get("task", expected)
    script = entry_script(task)
    if expected is not None and task != expected and script is not None:
        raise ValueError(f"{path}: task: is {task}, not {expected}; use {script} with this file")
