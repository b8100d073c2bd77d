"""Turn nested dictionaries into typed configuration sections: check keys and types, merge layers, fill in defaults.

A section is a frozen dataclass. Its class may depend on a `name` in it: the field of such a section holds, as metadata,
a table from names to classes (see `chosen_by_name`), so `model: {name: umt}` takes UMT's settings.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from configs.values import WrongTypeError, convert, described, remedy, shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
BY_NAME = "classes_by_name"


def chosen_by_name(classes: Mapping[str, type], default: Any) -> Any:
    """A dataclass field for a section whose class depends on its `name`.

    Args:
        classes: the section's class for each name.
        default: makes the section if a file has none; its `name` also applies if the file's section gives
            none.
    """
    return field(default_factory=default, metadata={BY_NAME: classes})


def classes_of(config_class: type, *layers: Mapping[Any, Any], source: str = "") -> dict[str, type]:
    """The class of each section of `config_class` that is chosen by name; the name in the last layer wins.

    `ValueError` for a name that is not in the table.
    """
    chosen = {}
    for item in fields(config_class):
        if BY_NAME not in item.metadata:
            continue
        classes = item.metadata[BY_NAME]
        name = _name_in(item, *layers)
        if name not in classes:
            prefix = f"{source}: " if source else ""
            raise ValueError(f"{prefix}{item.name}.name: found {shown(name)}, expected one of {', '.join(classes)}")
        chosen[item.name] = type(_default(item)) if name == _default_name(item) else classes[name]
    return chosen


def _name_in(item: Field, *layers: Mapping[Any, Any]) -> Any:
    """The name of a section in the last layer that gives one, else the default name."""
    sections = [layer.get(item.name) for layer in reversed(layers)]
    names = [section["name"] for section in sections if isinstance(section, dict) and "name" in section]
    return names[0] if names else _default_name(item)


def _default(item: Field) -> Any:
    assert item.default_factory is not MISSING, "a section that a name chooses has a default"
    return item.default_factory()


def _default_name(item: Field) -> Any:
    return _default(item).name


def check(config_class: type, layer: dict[Any, Any], source: str, lower: Mapping[Any, Any] | None = None) -> dict:
    """Check that every key of `layer` exists, and convert its values to their fields' types; keys may be missing.

    `lower` holds the layers below, which may name the class of a section. Errors begin with `source`.
    """
    chosen = classes_of(config_class, lower or {}, layer, source=source)

    def check_section(section: type, values: dict[Any, Any], prefix: str) -> dict[str, Any]:
        types = field_types(section, chosen if section is config_class else None)
        checked: dict[str, Any] = {}
        for name, value in values.items():
            key = f"{prefix}{name}"
            if name not in types:
                known = [*dotted_names(config_class, chosen=chosen), *dotted_names(section, prefix)]
                raise ValueError(f"{source}: {key}: unknown key; {remedy(key, known)}")
            checked[name] = check_value(types[name], value, key)
        return checked

    def check_value(expected: Any, value: Any, key: str) -> Any:
        if is_section(expected) and isinstance(value, dict):
            return check_section(expected, value, f"{key}.")
        listed = section_of_list(expected)
        if listed is not None and isinstance(value, list | tuple):
            return tuple(check_value(listed, item, f"{key}[{position}]") for position, item in enumerate(value))
        try:
            return convert(expected, value)
        except WrongTypeError:
            raise ValueError(f"{source}: {key}: found {shown(value)}, expected {described(expected)}") from None

    return check_section(config_class, layer, "")


def merge(section: type, lower: dict[str, Any], higher: dict[str, Any]) -> dict[str, Any]:
    """Merge a higher layer onto a section's values: nested sections key by key, lists as a whole.

    A section class may have a static `inherited(lower, higher)` that returns the part of `lower` to keep. If the higher
    layer gives a section another name, its old settings are dropped: they mean nothing to the new class.
    """
    if hasattr(section, "inherited"):
        lower = section.inherited(lower, higher)
    for item in fields(section):
        if BY_NAME in item.metadata and _name_in(item, lower) != _name_in(item, lower, higher):
            lower = {name: value for name, value in lower.items() if name != item.name}

    chosen = classes_of(section, lower, higher)
    merged = {**lower, **higher}
    for name, expected in field_types(section, chosen).items():
        if is_section(expected) and name in lower and name in higher:
            merged[name] = merge(expected, lower[name], higher[name])
    return merged


def complete(section: type, values: dict[str, Any], missing: list[str], prefix: str = "") -> dict[str, Any]:
    """Fill in the defaults of nested sections; appends dotted keys with neither value nor default to `missing`."""
    completed = dict(values)
    types = field_types(section, classes_of(section, values))

    for item in fields(section):
        if is_section(types[item.name]):
            default = _default_values(item, types[item.name])
            nested = merge(types[item.name], default, values.get(item.name, {}))
            completed[item.name] = complete(types[item.name], nested, missing, f"{prefix}{item.name}.")
        elif item.name in values and (listed := section_of_list(types[item.name])) is not None:
            completed[item.name] = [
                complete(listed, value, missing, f"{prefix}{item.name}[{position}].")
                for position, value in enumerate(values[item.name])
            ]
        elif item.name not in values and item.default is MISSING and item.default_factory is MISSING:
            missing.append(f"{prefix}{item.name}")

    return completed


def _default_values(item: Field, section: type) -> dict[str, Any]:
    """The default values of a nested section; a class other than the default's brings its own defaults."""
    if item.default_factory is MISSING:
        return {}
    default = item.default_factory()
    return asdict(default) if type(default) is section else asdict(section())  # type: ignore[call-overload]


def construct(section: type[Config], values: dict[str, Any], prefix: str = "") -> Config:
    """Build the section, and all sections inside it, from values that are complete and have the right types."""
    types = field_types(section, classes_of(section, values))
    built = dict(values)
    for name, value in values.items():
        listed = section_of_list(types[name])
        if is_section(types[name]):
            built[name] = construct(types[name], value, f"{prefix}{name}.")
        elif listed is not None:
            built[name] = tuple(_construct_item(listed, item, f"{prefix}{name}[{n}].") for n, item in enumerate(value))
    return section(**built)


def _construct_item(section: type[Config], values: dict[str, Any], prefix: str) -> Config:
    """Build a section inside a list. It does not know its position, so the prefix is added to its errors here."""
    try:
        return construct(section, values)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error


def field_types(section: type, chosen: Mapping[str, type] | None = None) -> dict[str, Any]:
    """The type of each field; `chosen` gives the classes of sections that are chosen by name."""
    hints = get_type_hints(section)
    return {item.name: hints[item.name] for item in fields(section)} | dict(chosen or {})


def is_section(expected: Any) -> bool:
    """Whether the type of a field is a section's class."""
    return isinstance(expected, type) and is_dataclass(expected)


def section_of_list(expected: Any) -> type | None:
    """The section class of a `tuple[Section, ...]`; None for any other type."""
    members = get_args(expected)
    is_list = get_origin(expected) is tuple and members[-1] is Ellipsis and is_section(members[0])
    return members[0] if is_list else None


def dotted_names(section: type, prefix: str = "", chosen: Mapping[str, type] | None = None) -> list[str]:
    """The dotted names of all settings of a section and of the sections inside it."""
    names = []
    for name, expected in field_types(section, chosen).items():
        nested = dotted_names(expected, f"{prefix}{name}.") if is_section(expected) else []
        names += [f"{prefix}{name}", *nested]
    return names
