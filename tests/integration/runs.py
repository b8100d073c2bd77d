"""Runs of the entry scripts within the test's own process, as the command line would start them."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch import Tensor

from tests.tiny_runs import settings

ROOT = Path(__file__).resolve().parent.parent.parent
BASE = ROOT / "configs" / "debug" / "base.yaml"
SCRIPTS = {"pretrain": "pretrain", "retrieval": "train_retrieval", "vqa": "train_vqa", "caption": "train_caption"}
SHORT: dict[str, Any] = {
    "optim": {"lr": 5e-3, "clip_norm": 1.0},
    "train": {"max_epochs": 4, "batch_size": 4, "eval_every": 2},
}


def start(script: str, *arguments: object) -> int:
    """The exit status of `python SCRIPT.py ARGUMENTS`."""
    with mock.patch.object(sys, "argv", [f"{script}.py", *map(str, arguments)]):
        try:
            runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def write_config(task: str, root: Path, name: str = "config.yaml", **sections: Any) -> Path:
    """A configuration file of a small run over the repository's own base; returns its path."""
    path = root / name
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump({"base": str(BASE), **settings(task, root, **sections)}, file)
    return path


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = ("samples_per_second", "seconds_per_step")
    return [{name: value for name, value in line.items() if name not in clock} for line in lines]


def losses_of(folder: Path) -> list[dict[str, float]]:
    """The losses of every logged step."""
    steps = [line for line in metrics_of(folder) if line["kind"] == "train"]
    return [{name: value for name, value in line.items() if name.startswith("loss")} for line in steps]


def results_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    return load_file(checkpoint / "model.safetensors")


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file with what it holds, but for the heartbeats, which every start begins anew."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and "heartbeats" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def train(root: Path, folder: Path, task: str = "retrieval", **sections: Any) -> Path:
    """Train in a new folder; returns it."""
    config = write_config(task, root, f"{folder.name}.yaml", output_dir=str(folder), **sections)
    assert start(SCRIPTS[task], "--config", config) == 0
    return folder


def command(*arguments: object) -> None:
    """Run a command of the repository; its error output is the failure's text."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr


def assert_same_losses(folder: Path, other: Path, tolerance: float) -> None:
    found, expected = losses_of(folder), losses_of(other)
    assert len(found) == len(expected) > 1
    for one, two in zip(found, expected, strict=True):
        assert one == pytest.approx(two, abs=tolerance)
