"""What is looked at, and fetched, before a row's commands run: its data, its weights and its vocabulary.

Many processes would each find the same mistake, minutes later, and each ask the hub. Needs no torch.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from configs.schema import RunConfig
from engine.checkpoint_files import LAST
from engine.fetching import require_all
from scripts.parts.row_configs import published_at, read_config, trained_row
from scripts.parts.rows.row import Row
from scripts.reproduce.plan import Plan, Request, data_folder, missing_start, settings_of, start_of
from tasks.annotations import PARTS, Part, read_split


def prepare(row: Row, request: Request, plan: Plan) -> None:
    """Read the annotations of all parts that the row's commands need, and fetch what they need from the hub.

    Raises:
        ValueError: something is missing; one line says what, and what to do.
    """
    _check_folder(row, request)
    if plan.weights == "trained":
        _prepare_training(trained_row(row), request)
        _check_data(_config(row, request, {}), ["test"])
    else:
        _prepare_evaluation(row, request)


def _check_folder(row: Row, request: Request) -> None:
    if not request.data.is_dir():
        raise ValueError(f"--data: {request.data} does not exist; docs/DATASETS.md says what belongs there")
    folder = data_folder(read_config(row), request.data)
    if not folder.is_dir():
        raise ValueError(
            f"--data: {request.data} holds no folder {folder.name}, which {row.name} is run on; docs/DATASETS.md says "
            "where to get it and how to lay it out"
        )


def _prepare_training(row: Row, request: Request) -> None:
    start = start_of(row, request)
    config = _config(row, request, {"checkpoint": start})
    _check_data(config, PARTS)
    if (request.out / row.name / "training" / LAST).exists():
        return  # it resumes from there

    for warning in missing_start(row, start):
        raise ValueError(warning)
    require_all(config, _fetched_by(row, config))


def _prepare_evaluation(row: Row, request: Request) -> None:
    evaluated = request.checkpoint or row.released
    assert evaluated is not None, f"{row.name} has nothing to evaluate"
    config = _config(row, request, {"checkpoint": evaluated})
    _check_data(config, ["test"])
    if "://" not in evaluated and not Path(evaluated).exists():
        whence = f"; fetch {published_at(evaluated)}" if published_at(evaluated) is not None else ""
        raise ValueError(f"--checkpoint: {evaluated} does not exist{whence}")
    require_all(config, _fetched_by(row, config))


def _config(row: Row, request: Request, own: dict[str, str]) -> RunConfig:
    """The configuration that the row's command will have."""
    settings = settings_of(row, request, own)
    return read_config(row, [f"{key}={value}" for key, value in settings.items()])


def _check_data(config: RunConfig, parts: Sequence[Part]) -> None:
    for part in parts:
        read_split(config, part)


def _fetched_by(row: Row, config: RunConfig) -> str:
    """What `scripts.fetch` is given to fetch the same."""
    return shlex.join((f"checkpoint={config.checkpoint}", "--config", row.config))
