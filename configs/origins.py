"""Where each setting of a configuration comes from: its YAML file, a base of it, a checkpoint, or the command line."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from configs.load import EVALUATED_AS_TRAINED

DEFAULT, COMMAND_LINE = "default", "command line"
NO_SETTINGS = ("base", "evaluate_with")
"""Keys that say how a file is read; they are no settings."""


class Layer(NamedTuple):
    """The settings of one source, by dotted key."""

    source: str
    settings: dict[str, Any]


def file_layers(path: Path) -> list[Layer]:
    """The bases of a configuration file and the file itself, lowest layer first. The file must load without errors."""
    own = _read(path)
    bases = own.get("base", [])
    names = [bases] if isinstance(bases, str) else bases
    paths = [Path(os.path.normpath(path.parent / name)) for name in names]
    return [Layer(str(each), flattened(_read(each))) for each in (*paths, path)]


def checkpoint_layer(checkpoint: Path, path: Path | None) -> Layer | None:
    """The settings that an evaluation takes from a checkpoint's own configuration; None if it has none.

    Args:
        path: the evaluation's own file, which gives everything but the model and its input; None if the checkpoint's
            configuration gives that too.
    """
    trained = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "config.yaml"
    if not trained.is_file():
        return None

    settings = _read(trained)
    if path is not None:
        evaluated_with = _read(path).get("evaluate_with", [])
        taken = [name for name in EVALUATED_AS_TRAINED if name not in evaluated_with]
        settings = {name: value for name, value in settings.items() if name in taken}
        return Layer(
            str(trained), {key: value for key, value in flattened(settings).items() if key not in evaluated_with}
        )
    return Layer(str(trained), flattened(settings))


def command_line_layer(overrides: list[str]) -> Layer:
    """The settings of `key=value` on the command line."""
    pairs = (override.partition("=") for override in overrides)
    return Layer(COMMAND_LINE, {key: YAML(typ="safe", pure=True).load(text) for key, _, text in pairs})


def origins(settings: dict[str, Any], layers: list[Layer]) -> dict[str, str]:
    """The source of each setting, by dotted key: the highest layer that sets it, or "default".

    It is "default" if the layer's value did not reach the configuration: a new reducer, for instance, drops the amounts
    that a lower layer set.
    """
    found = {}
    for key, value in flattened(settings).items():
        setters = [layer for layer in layers if key in layer.settings]
        is_kept = bool(setters) and setters[-1].settings[key] == value
        found[key] = setters[-1].source if is_kept else DEFAULT
    return found


def flattened(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted keys, in order."""
    flat: dict[str, Any] = {}
    for name, value in section.items():
        if not prefix and name in NO_SETTINGS:
            continue
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _read(path: Path) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")) or {}
