"""Read YAML into the frozen dataclasses of `configs/schema.py`, and write them back.

A configuration is built from layers, each overriding the ones before: defaults, the files under `base:`, the file
itself, and `a.b=c` on the command line. Every layer is checked alone, so that an error names the file it comes from.
Every error is a one-line `ValueError`: the file (or "command line"), the dotted key, what was found, what is expected.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from configs.entry_scripts import entry_script, refuse_other_task
from configs.moved import new_path
from configs.remote import RemoteConfig
from configs.sections import Config, check, complete, construct, merge
from configs.values import differences as differences, shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

EVALUATED_AS_TRAINED = ("model", "video", "aggregation")
"""Sections that an evaluation takes from the checkpoint's own configuration."""


def load(config_class: type[Config], path: Path, overrides: list[str]) -> Config:
    """Load the YAML file `path` on top of its bases, then apply `overrides` of the form `a.b=c`."""
    data = apply_overrides(_read_layers(config_class, path), overrides, config_class)
    return from_dict(config_class, data, f"{path} with {' '.join(overrides)}" if overrides else str(path), overrides)


def load_to_evaluate(
    config_class: type[Config],
    path: Path | None,
    overrides: list[str],
    local: Path | None = None,
) -> Config:
    """The configuration to evaluate a checkpoint, which keeps its own model, input and aggregation.

    The file `path` gives the rest (data, evaluation); without it the checkpoint's own configuration gives that too. To
    evaluate with another input or aggregation, a file lists those sections under `evaluate_with:`. Overrides win over
    both. A checkpoint without a config.yaml beside it takes everything from `path`. `local` is the checkpoint's path on
    this machine, if `checkpoint=` is an address.
    """
    data = _read_layers(config_class, path) if path is not None else {}
    checkpoint = checkpoint_to_evaluate(config_class, path, overrides)
    local = local or Path(checkpoint)
    if not local.exists():
        raise ValueError(f"command line: checkpoint: {checkpoint} does not exist")

    folder = local if local.is_dir() else local.parent
    trained = folder / "config.yaml"

    # With a file of its own, an evaluation takes only what describes the model from the checkpoint; without one, all
    # of its settings, provided that they are for the same task.
    if trained.exists():
        own = _read_file(trained)
        if path is not None:
            kept = _evaluated_with(_read_file(path), path)
            own = {name: own[name] for name in EVALUATED_AS_TRAINED if name in own and name not in kept}
            own = {section: _with_own_settings(own[section], section, kept, data) for section in own}
        elif own.get("task") != config_class.task:  # type: ignore[attr-defined]
            script = entry_script(own.get("task"))
            use = f"use {script}, or " if script else ""
            raise ValueError(
                f"{trained}: is of {shown(own.get('task'))}; {use}say with --config what to evaluate it on"
            )
        else:
            # The training run's own `checkpoint`, `output_dir` and cache mean nothing to its evaluation.
            own = {**own, "checkpoint": None, "output_dir": None}
            if isinstance(own.get("data"), dict):
                own["data"] = {name: value for name, value in own["data"].items() if name != "remote"}
        data = {**data, **check(config_class, own, str(trained))}
    elif path is None:
        raise ValueError(f"{checkpoint}: has no config.yaml beside it; say with --config what it is of")

    return from_dict(config_class, apply_overrides(data, overrides, config_class), str(path or trained), overrides)


def checkpoint_to_evaluate(config_class: type[Config], path: Path | None, overrides: list[str]) -> str:
    """The path or address of the checkpoint named by `overrides`, or else by the file `path`; ValueError if none is."""
    data = _read_layers(config_class, path) if path is not None else {}
    checkpoint = _parse_overrides(overrides).get("checkpoint") or data.get("checkpoint")
    if checkpoint is None:
        raise ValueError("command line: checkpoint: nothing to evaluate; give checkpoint=FILE_OR_FOLDER")
    return checkpoint


def load_any(config_classes: Sequence[type[Config]], path: Path, overrides: list[str]) -> Config:
    """Load `path` into the class whose `task` the file, or one of its bases, names."""
    own = _read_file(path)
    layers = [*(_read_file(base) for base in _base_paths(own.get("base", []), path)), own]
    task = next((layer["task"] for layer in reversed(layers) if "task" in layer), None)
    by_task = {config_class.task: config_class for config_class in config_classes}  # type: ignore[attr-defined]
    if task not in by_task:
        raise ValueError(f"{path}: task: found {shown(task)}, expected one of {', '.join(by_task)}")
    return load(by_task[task], path, overrides)


def from_dict(config_class: type[Config], data: dict[str, Any], source: str, overrides: Sequence[str] = ()) -> Config:
    """Build the configuration from the nested keys `data`; errors begin with `source`.

    An error about a key that `overrides` set begins with "command line" instead.
    """
    missing: list[str] = []
    completed = complete(config_class, check(config_class, data, source), missing)
    if missing:
        raise ValueError(f"{source}: {', '.join(missing)}: missing, and without a default")
    try:
        return construct(config_class, completed)
    except ValueError as error:
        overridden = {override.partition("=")[0] for override in overrides}
        blamed = "command line" if str(error).partition(":")[0] in overridden else source
        raise ValueError(f"{blamed}: {error}") from error


def to_dict(config: "DataclassInstance") -> dict[str, Any]:
    """All settings as nested plain values for JSON and YAML, which `from_dict` reads back."""
    return dict(json.loads(json.dumps(asdict(config))))  # through JSON, which turns tuples into lists


def dump(config: "DataclassInstance", path: Path) -> None:
    """Write all settings as a YAML file; `load` reads it back to an equal configuration."""
    yaml = _yaml()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(to_dict(config), file)


def apply_overrides(data: dict[str, Any], overrides: list[str], config_class: type[Config]) -> dict[str, Any]:
    """`data` with every `a.b=c` of `overrides` applied; values are YAML, and the order does not matter."""
    layer = check(config_class, _parse_overrides(overrides), "command line", data)
    return merge(config_class, data, layer)


def remote_settings(overrides: Sequence[str]) -> RemoteConfig:
    """What a command line sets below `data.remote`, for commands that read files before any configuration."""
    own = [override for override in overrides if override.startswith("data.remote.")]
    return from_dict(RemoteConfig, _parse_overrides(own).get("data", {}).get("remote", {}), "command line")


def _parse_overrides(overrides: list[str]) -> dict[str, Any]:
    """The `a.b=c` of a command line as nested dictionaries; does not check that such settings exist."""
    layer: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"command line: {override!r}: expected KEY=VALUE, such as optim.lr=1e-5")

        *sections, name = key.split(".")
        section = layer
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ValueError(f"command line: {key}: {part} is a value, not a section")

        if name in section:
            raise ValueError(f"command line: {key}: given twice")
        section[name] = _parse(text, f"command line: {key}")
    return layer


def _yaml() -> YAML:
    # The pure-Python reader knows YAML 1.2, where 1e-5 is a number and `no` is text, and builds plain values only.
    return YAML(typ="safe", pure=True)


def _parse(text: str, source: str) -> Any:
    try:
        return _yaml().load(text)
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{source}{line}: {error.problem or error.context}") from error
    except (YAMLError, ValueError) as error:  # control characters; a date that does not exist
        raise ValueError(f"{source}: {' '.join(str(error).split())}") from error


def _read_file(path: Path) -> dict[Any, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        moved = new_path(path)
        found = f"has moved; use {moved}" if moved else f"cannot be read: {error.strerror}"
        raise ValueError(f"{path}: {found}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no UTF-8 text") from error
    data = _parse(text, str(path))
    if not isinstance(data, dict | None):
        raise ValueError(f"{path}: found {shown(data)}, expected sections of keys and values")
    return data or {}


def _read_layers(config_class: type, path: Path) -> dict[str, Any]:
    """Merge a file onto its bases; checks keys and types, but not for missing keys."""
    own = _read_file(path)
    refuse_other_task(getattr(config_class, "task", None), own, path)
    _evaluated_with(own, path)  # check it here too, so that training also finds a mistake

    data: dict[str, Any] = {}
    for base in _base_paths(own.get("base", []), path):
        layer = _read_file(base)
        if "base" in layer:
            raise ValueError(f"{base}: base: a base cannot have a base of its own; list both in {path}")
        data = merge(config_class, data, check(config_class, layer, str(base), data))

    settings = {name: value for name, value in own.items() if name not in ("base", "evaluate_with")}
    return merge(config_class, data, check(config_class, settings, str(path), data))


def _with_own_settings(trained: Any, section: str, kept: list[str], data: dict[Any, Any]) -> Any:
    """A checkpoint's section, with the file's value of each setting in it that the file keeps."""
    keys = [name.partition(".")[2] for name in kept if name.partition(".")[0] == section]
    own = data.get(section, {})
    return {**trained, **{key: own[key] for key in keys if key in own}} if keys else trained


def _evaluated_with(own: dict[Any, Any], path: Path) -> list[str]:
    """What replaces the evaluated checkpoint's own, as the file lists it under `evaluate_with`: sections, or a setting
    of the model that training does not depend on.
    """
    names, allowed = own.get("evaluate_with", []), ("video", "aggregation", "model.pooling")
    if not isinstance(names, list) or not all(name in allowed for name in names):
        raise ValueError(f"{path}: evaluate_with: found {shown(names)}, expected a list of {' and '.join(allowed)}")
    return names


def _base_paths(base: Any, path: Path) -> list[Path]:
    names = [base] if isinstance(base, str) else base
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: base: found {shown(base)}, expected a path or a list of paths")
    return [path.parent / name for name in names]
