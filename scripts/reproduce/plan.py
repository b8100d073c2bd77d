"""From a row to the commands that reproduce it: training where there are no weights, then one evaluation."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

from configs.schema import TASKS, ObjectiveConfig, RetrievalConfig, RunConfig
from scripts.parts.commands import ROOT
from scripts.parts.row_configs import configured_start, publication_of, published_at, read_config, trained_row
from scripts.parts.rows.row import Row

PUBLISHED_PROCESSES = 8
PLANNED = {"data.root": "--data", "checkpoint": "--checkpoint", "output_dir": "--out"}
"""Settings that belong to the plan, with the option that says each."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for besides the row.

    Attributes:
        data: the folder of all datasets, each in the folder that its configuration names.
        out: where runs are written, in a folder a row.
        checkpoint: weights to evaluate; nothing is trained then. start: weights to train from.
        retrain: train although weights are released.
        recipe: a name of the publication's recipes. processes: of torchrun on this machine; 1 is plain Python.
        overrides: `key=value` for every command, over the recipe.
    """

    data: Path
    out: Path
    checkpoint: str | None = None
    start: str | None = None
    retrain: bool = False
    recipe: str = "release"
    processes: int = 1
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a row takes.

    Attributes:
        commands: as words after `python`.
        results: the folder of the evaluation's results.
        weights: whose are evaluated.
        warnings: what may keep the numbers from coming out.
    """

    commands: tuple[tuple[str, ...], ...]
    results: Path
    weights: Literal["released", "given", "trained"]
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The commands as one would type them."""
        return [shlex.join(("python", *words)) for words in self.commands]


def make_plan(row: Row, request: Request) -> Plan:
    """The commands of `row`; ValueError for what cannot be, or has no effect."""
    _refuse_contradictions(row, request)
    results = request.out / row.name / "evaluation"
    weights: Literal["released", "given", "trained"] = "trained"
    commands: list[tuple[str, ...]] = []
    warnings: tuple[str, ...] = ()
    if request.checkpoint is not None:
        evaluated = request.checkpoint
        weights = "released" if _is_released(row, evaluated) else "given"
    elif row.released is not None and not request.retrain:
        evaluated, weights = row.released, "released"
    else:
        trained = trained_row(row)
        folder = request.out / trained.name / "training"
        start = start_of(trained, request)
        warnings += missing_start(trained, start)
        commands.append(_command(trained, request, {"checkpoint": start, "output_dir": str(folder)}))
        evaluated = str(folder / "checkpoint_best")

    commands.append(_command(row, request, {"checkpoint": evaluated, "output_dir": str(results)}, "--evaluate"))
    depends = _parsed(request.overrides).get("objective.vtc_keys", _vtc_keys(row)) == "local"
    if weights == "trained" and depends and request.processes != PUBLISHED_PROCESSES:
        warnings += (
            f"published weights were trained on {PUBLISHED_PROCESSES} GPUs, whose number matters with "
            f"objective.vtc_keys local; this is {request.processes} (--nproc {PUBLISHED_PROCESSES}, or "
            "objective.vtc_keys=all)",
        )

    return Plan(tuple(commands), results, weights, warnings)


def recipe_settings(row: Row, name: str) -> dict[str, str]:
    """What a recipe puts over a row's file, as `key: value` with values as the command line takes them."""
    recipes = publication_of(row).recipes
    if name not in recipes:
        raise ValueError(f"--recipe: {name} is no recipe of {publication_of(row).title}; it has {', '.join(recipes)}")

    path = recipes[name]
    if path is None:
        return {}
    return _flattened(YAML(typ="safe", pure=True).load((ROOT / path).read_text(encoding="utf-8")))


def _command(row: Row, request: Request, own: dict[str, str], *options: str) -> tuple[str, ...]:
    """The words after `python`; of a setting given twice the user's stands, then the plan's own, then the recipe's."""
    settings = settings_of(row, request, own)
    launcher: tuple[str, ...] = ()
    if request.processes > 1:
        launcher = ("-m", "engine.launch", f"--nproc_per_node={request.processes}")
    words = (TASKS[read_config(row).task].script, *options, "--config", row.config)
    return (*launcher, *words, *(f"{key}={value}" for key, value in settings.items()))


def settings_of(row: Row, request: Request, own: dict[str, str]) -> dict[str, str]:
    """What a command of the row puts over the row's file, `own` being the plan's."""
    settings = recipe_settings(row, request.recipe) | {"data.root": str(data_folder(read_config(row), request.data))}
    return settings | own | _parsed(request.overrides)


def data_folder(config: RunConfig, data: Path) -> Path:
    """The folder of this row's dataset: named as in the configuration, below the folder of all datasets."""
    return data / Path(config.data.root).name


def start_of(row: Row, request: Request) -> str:
    """The weights that training begins with: asked for, or the configuration's own."""
    return request.start or configured_start(row)


def missing_start(row: Row, start: str) -> tuple[str, ...]:
    """A warning if the file that training begins with is not there; the training itself then refuses to begin."""
    if "://" in start or Path(start).exists():
        return ()
    whence = f"; fetch {published_at(start)} and give its path" if published_at(start) is not None else ""
    return (f"--start: {start}, from which {row.name} is trained, does not exist{whence}",)


def _vtc_keys(row: Row) -> str | None:
    config = read_config(row)
    objective = config.objective if isinstance(config, RetrievalConfig) else None
    return objective.vtc_keys if isinstance(objective, ObjectiveConfig) else None


def _refuse_contradictions(row: Row, request: Request) -> None:
    for key in _parsed(request.overrides):
        if key in PLANNED:
            raise ValueError(f"{key}: is planned here; say it with {PLANNED[key]}")
    if request.processes < 1:
        raise ValueError(f"--nproc: {request.processes} is less than 1")
    if request.retrain and row.is_zero_shot:
        raise ValueError(f"--train: {row.name} is zero-shot, so nothing is trained; leave it out")
    if request.checkpoint is not None:
        for option, value in (("--train", request.retrain), ("--start", request.start)):
            if value:
                raise ValueError(f"{option}: has no effect with --checkpoint, which is evaluated as it is")
    elif row.released is not None and not request.retrain:
        if request.start is not None:
            raise ValueError(f"--start: has no effect: the released weights of {row.name} are evaluated; add --train")


def _is_released(row: Row, checkpoint: str) -> bool:
    """Whether this is the released file, by its name."""
    return row.released is not None and Path(checkpoint).name == Path(row.released).name


def _parsed(overrides: Sequence[str]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ValueError(f"command line: {override!r}: expected KEY=VALUE, such as train.workers=8")
        if key in settings:
            raise ValueError(f"command line: {key}: given twice")
        settings[key] = value
    return settings


def _flattened(section: dict[str, Any], prefix: str = "") -> dict[str, str]:
    settings: dict[str, str] = {}
    for name, value in section.items():
        nested = _flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        settings |= {f"{prefix}{name}": _shown(value)} if nested is None else nested
    return settings


def _shown(value: Any) -> str:
    """A value as YAML that needs no quotes in a shell where it is a word or a number."""
    return value if isinstance(value, str) else json.dumps(value)
