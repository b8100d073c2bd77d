"""results.json: an evaluation's metrics, with everything needed to know what was evaluated."""

import json
import platform
import subprocess
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from configs.load import to_dict
from configs.schema import RunConfig
from configs.version import VERSION
from engine.checkpoint_folder import write_json, write_lines
from engine.precision import Precision

RESULTS = "results.json"
FAILED = "missing_videos.jsonl"
FAILED_SHOWN = 20
HISTORY = "results_history.jsonl"
"""Every result of the folder, oldest first. Evaluating again replaces results.json, but loses no number."""


def write_results(
    config: RunConfig, result: dict[str, Any], checkpoint: str, device: torch.device, precision: Precision
) -> dict[str, Any]:
    """Write an evaluation's `result` into the output folder, each file whole or not at all; returns results.json.

    missing_videos.jsonl lists all videos that could not be read, with their reasons; results.json the first of them.
    """
    assert config.output_dir is not None
    folder = Path(config.output_dir)
    failed, files = result.get("failed", []), dict(result.get("files", {}))
    files[FAILED] = partial(write_lines, failed)
    for name, write in files.items():
        _write_whole(folder / name, write)

    results = {
        "task": config.task,
        **{name: value for name, value in result.items() if name not in ("metrics", "files")},
        "failed": failed[:FAILED_SHOWN],
        "files": sorted(files),
        "checkpoint": checkpoint,
        "config": to_dict(config),
        "metrics": result["metrics"],
        "versions": {
            "project": VERSION,
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "torchvision", "transformers")},
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "precision": precision,
            "revision": git_revision(),
        },
    }

    write_json(folder / RESULTS, results)
    with (folder / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(results) + "\n")
    return results


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    write(temporary)
    temporary.replace(path)


def git_revision() -> str | None:
    """The commit of this code, with `+changes` if files differ from it; None outside a git repository."""
    root = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(("git", *arguments), cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
