"""Reads YAML into the frozen dataclasses of `configs/schema.py`, and writes them back.

A configuration is made of layers, each put on the ones before: defaults, the files under `base:`, the file itself, the
`a.b=c` of the command line. Every layer is checked alone, so that an error names the file it comes from. All errors are
`ValueError`s of one line: the file (or "command line"), the dotted key, what was found and what is expected.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from configs.entry_scripts import entry_script, refuse_other_task
from configs.moved import new_path
from configs.values import WrongTypeError, convert, described, differences as differences, remedy, shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

EVALUATED_AS_TRAINED = ("model", "video", "aggregation")
"""The sections that an evaluation takes from the checkpoint's own configuration."""
Config = TypeVar("Config", bound="DataclassInstance")


def load(config_class: type[Config], path: Path, overrides: list[str]) -> Config:
    """The configuration in the YAML file `path`, over its bases and under `overrides` of the form `a.b=c`."""
    data = apply_overrides(_read_layers(config_class, path), overrides, config_class)
    return from_dict(config_class, data, f"{path} with {' '.join(overrides)}" if overrides else str(path), overrides)


def load_to_evaluate(
    config_class: type[Config],
    path: Path | None,
    overrides: list[str],
    local_path: Callable[[str], Path] = Path,
) -> Config:
    """The configuration to evaluate the `checkpoint=` of `overrides` with: the checkpoint's own model and input.

    The file `path` says the rest (data, evaluation); without it the checkpoint's own configuration says that too. A
    file whose purpose is another input or aggregation than was trained lists those sections under `evaluate_with:`.
    Over all stand the overrides. A checkpoint that is a lone file has no configuration: then `path` says everything.
    `local_path` says where on this machine a checkpoint with an address is.
    """
    data = _read_layers(config_class, path) if path is not None else {}
    asked = apply_overrides({}, overrides, config_class)
    checkpoint = asked.get("checkpoint") or data.get("checkpoint")
    if checkpoint is None:
        raise ValueError("command line: checkpoint: nothing to evaluate; give checkpoint=FILE_OR_FOLDER")
    local = local_path(checkpoint)
    if not local.exists():
        raise ValueError(f"command line: checkpoint: {checkpoint} does not exist")
    folder = local if local.is_dir() else local.parent
    trained = folder / "config.yaml"
    if trained.exists():
        own = _read_file(trained)
        if path is not None:
            kept = _evaluated_with(_read_file(path), path)
            own = {name: own[name] for name in EVALUATED_AS_TRAINED if name in own and name not in kept}
        elif own.get("task") != config_class.task:  # type: ignore[attr-defined]
            script = entry_script(own.get("task"))
            use = f"use {script}, or " if script else ""
            raise ValueError(
                f"{trained}: is of {shown(own.get('task'))}; {use}say with --config what to evaluate it on"
            )
        else:
            # What was trained from is not what is evaluated, and its folder is not to be written to.
            own = {**own, "checkpoint": None, "output_dir": None}
        data = {**data, **_check(config_class, own, str(trained))}
    elif path is None:
        raise ValueError(f"{checkpoint}: has no config.yaml beside it; say with --config what it is of")
    return from_dict(config_class, apply_overrides(data, overrides, config_class), str(path or trained), overrides)


def load_any(config_classes: Sequence[type[Config]], path: Path, overrides: list[str]) -> Config:
    """The configuration in `path` of whichever of the classes has the `task` that the file, or a base of it, names."""
    own = _read_file(path)
    layers = [*(_read_file(base) for base in _base_paths(own.get("base", []), path)), own]
    task = next((layer["task"] for layer in reversed(layers) if "task" in layer), None)
    by_task = {config_class.task: config_class for config_class in config_classes}  # type: ignore[attr-defined]
    if task not in by_task:
        raise ValueError(f"{path}: task: found {shown(task)}, expected one of {', '.join(by_task)}")
    return load(by_task[task], path, overrides)


def from_dict(config_class: type[Config], data: dict[str, Any], source: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration whose nested keys are `data`; errors begin with `source`.

    An error about a key that `overrides` set begins with "command line".
    """
    missing: list[str] = []
    completed = _complete(config_class, _check(config_class, data, source), missing)
    if missing:
        raise ValueError(f"{source}: {', '.join(missing)}: missing, and without a default")
    try:
        return _construct(config_class, completed)
    except ValueError as error:
        asked = {override.partition("=")[0] for override in overrides}
        blamed = "command line" if str(error).partition(":")[0] in asked else source
        raise ValueError(f"{blamed}: {error}") from error


def to_dict(config: "DataclassInstance") -> dict[str, Any]:
    """All settings as nested plain values, which JSON and YAML can hold and `from_dict` reads back."""
    return dict(json.loads(json.dumps(asdict(config))))  # through JSON, which makes tuples lists


def dump(config: "DataclassInstance", path: Path) -> None:
    """Write all settings as a YAML file that `load` reads back to an equal configuration."""
    yaml = _yaml()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(to_dict(config), file)


def apply_overrides(data: dict[str, Any], overrides: list[str], config_class: type[Config]) -> dict[str, Any]:
    """`data` with every `a.b=c` of `overrides` put on it, values read as YAML; their order does not matter."""
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
    return _merge(config_class, data, _check(config_class, layer, "command line"))


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
    """The values of a file over those of its bases; keys and types are checked, missing keys are not."""
    own = _read_file(path)
    refuse_other_task(getattr(config_class, "task", None), own, path)
    _evaluated_with(own, path)  # refused here as well, so that training finds the mistake
    data: dict[str, Any] = {}
    for base in _base_paths(own.get("base", []), path):
        layer = _read_file(base)
        if "base" in layer:
            raise ValueError(f"{base}: base: a base cannot have a base of its own; list both in {path}")
        data = _merge(config_class, data, _check(config_class, layer, str(base)))
    settings = {name: value for name, value in own.items() if name not in ("base", "evaluate_with")}
    return _merge(config_class, data, _check(config_class, settings, str(path)))


def _evaluated_with(own: dict[Any, Any], path: Path) -> list[str]:
    """The sections that a file, with its bases, puts over those of the checkpoint it evaluates."""
    names, allowed = own.get("evaluate_with", []), ("video", "aggregation")
    if not isinstance(names, list) or not all(name in allowed for name in names):
        raise ValueError(f"{path}: evaluate_with: found {shown(names)}, expected a list of {' and '.join(allowed)}")
    return names


def _base_paths(base: Any, path: Path) -> list[Path]:
    names = [base] if isinstance(base, str) else base
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: base: found {shown(base)}, expected a path or a list of paths")
    return [path.parent / name for name in names]


def _check(config_class: type, layer: dict[Any, Any], source: str) -> dict[str, Any]:
    """`layer`, which may lack keys, once every key is known, its values converted to their fields' types."""

    def check_section(section: type, values: dict[Any, Any], prefix: str) -> dict[str, Any]:
        types = _field_types(section)
        checked: dict[str, Any] = {}
        for name, value in values.items():
            key = f"{prefix}{name}"
            if name not in types:
                known = [*_dotted_names(config_class), *_dotted_names(section, prefix)]
                raise ValueError(f"{source}: {key}: unknown key; {remedy(key, known)}")
            checked[name] = check_value(types[name], value, key)
        return checked

    def check_value(expected: Any, value: Any, key: str) -> Any:
        if _is_section(expected) and isinstance(value, dict):
            return check_section(expected, value, f"{key}.")
        listed = _section_of_list(expected)
        if listed is not None and isinstance(value, list | tuple):
            return tuple(check_value(listed, item, f"{key}[{position}]") for position, item in enumerate(value))
        try:
            return convert(expected, value)
        except WrongTypeError:
            raise ValueError(f"{source}: {key}: found {shown(value)}, expected {described(expected)}") from None

    return check_section(config_class, layer, "")


def _merge(section: type, lower: dict[str, Any], higher: dict[str, Any]) -> dict[str, Any]:
    """A section's values with those of a higher layer put on them, nested sections key by key, lists as a whole.

    A section class may have a static `inherited(lower, higher)` that says what of `lower` stands.
    """
    if hasattr(section, "inherited"):
        lower = section.inherited(lower, higher)
    merged = {**lower, **higher}
    for name, expected in _field_types(section).items():
        if _is_section(expected) and name in lower and name in higher:
            merged[name] = _merge(expected, lower[name], higher[name])
    return merged


def _complete(section: type, values: dict[str, Any], missing: list[str], prefix: str = "") -> dict[str, Any]:
    """`values` over the defaults of nested sections; appends the dotted keys without value or default to `missing`."""
    completed = dict(values)
    types = _field_types(section)
    for item in fields(section):
        if _is_section(types[item.name]):
            default = {} if item.default_factory is MISSING else asdict(item.default_factory())
            nested = _merge(types[item.name], default, values.get(item.name, {}))
            completed[item.name] = _complete(types[item.name], nested, missing, f"{prefix}{item.name}.")
        elif item.name in values and (listed := _section_of_list(types[item.name])) is not None:
            completed[item.name] = [
                _complete(listed, value, missing, f"{prefix}{item.name}[{position}].")
                for position, value in enumerate(values[item.name])
            ]
        elif item.name not in values and item.default is MISSING and item.default_factory is MISSING:
            missing.append(f"{prefix}{item.name}")
    return completed


def _construct(section: type[Config], values: dict[str, Any], prefix: str = "") -> Config:
    types = _field_types(section)
    built = dict(values)
    for name, value in values.items():
        listed = _section_of_list(types[name])
        if _is_section(types[name]):
            built[name] = _construct(types[name], value, f"{prefix}{name}.")
        elif listed is not None:
            built[name] = tuple(_construct_item(listed, item, f"{prefix}{name}[{n}].") for n, item in enumerate(value))
    return section(**built)


def _construct_item(section: type[Config], values: dict[str, Any], prefix: str) -> Config:
    """A section of a list, which does not know its place in it: its errors begin with its own keys."""
    try:
        return _construct(section, values)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error


def _field_types(section: type) -> dict[str, Any]:
    hints = get_type_hints(section)
    return {item.name: hints[item.name] for item in fields(section)}


def _is_section(expected: Any) -> bool:
    return isinstance(expected, type) and is_dataclass(expected)


def _section_of_list(expected: Any) -> type | None:
    """The section class of a `tuple[Section, ...]`; None for any other type."""
    members = get_args(expected)
    is_list = get_origin(expected) is tuple and members[-1] is Ellipsis and _is_section(members[0])
    return members[0] if is_list else None


def _dotted_names(section: type, prefix: str = "") -> list[str]:
    names = []
    for name, expected in _field_types(section).items():
        nested = _dotted_names(expected, f"{prefix}{name}.") if _is_section(expected) else []
        names += [f"{prefix}{name}", *nested]
    return names
