"""Class names by number, from lists as they are published, and the words for each class in a prompt."""

from collections.abc import Sequence
from pathlib import Path

from datasets.annotations.files import GET_IT_AGAIN, csv_of, json_of, lines_of


def read_class_names(path: Path) -> tuple[str, ...]:
    """The classes of a list, from number 0.

    A list is a text with one name per line; a text with `number name` per line, from 0 or 1; a table with columns `id`
    and `name`; or JSON of {name: number}, or of {name: anything else} in the order of the file. ValueError, naming the
    line, if it is none of these, if a name is repeated, or if a number is missing.
    """
    if path.suffix == ".json":
        return _of_json(path)
    if path.suffix == ".csv":
        rows = csv_of(path, ("id", "name"))
        return _in_order([(row.place, row.text("id").strip(), row.text("name").strip()) for row in rows])

    # Lines are numbered if all of them are; a single name may also begin with a number.
    lines = lines_of(path)
    numbered = [(place, *line.split(maxsplit=1)) for place, line in lines]
    if all(len(row) == 3 and row[1].isdigit() for row in numbered):
        return _in_order([(row[0], row[1], row[2]) for row in numbered if len(row) == 3])
    return _distinct([(place, name) for place, name in lines])


def _of_json(path: Path) -> tuple[str, ...]:
    content = json_of(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: not an object of names; {GET_IT_AGAIN}")
    if all(_is_number(value) for value in content.values()):
        return _in_order([(f"{path}: {name!r}", str(value), name) for name, value in content.items()])
    return _distinct([(f"{path}: {name!r}", name) for name in content])


def _is_number(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value.isdigit())


def _in_order(rows: Sequence[tuple[str, str, str]]) -> tuple[str, ...]:
    """Sort names by number; numbers must begin at 0 or 1 and have no gap."""
    names: dict[int, str] = {}
    for place, text, name in rows:
        if not text.isdigit():
            raise ValueError(f"{place}: {text!r} is not the number of a class; {GET_IT_AGAIN}")
        number = int(text)
        if number in names:
            raise ValueError(f"{place}: number {number} is {names[number]!r} too; {GET_IT_AGAIN}")
        names[number] = name

    # All numbers from the first on must be there.
    first = min(names)
    missing = [number for number in range(first, first + len(names)) if number not in names]
    if first not in (0, 1) or missing:
        lacking = first - 1 if first > 1 else missing[0]
        raise ValueError(f"{rows[0][0]}: the numbers of the classes leave out {lacking}; {GET_IT_AGAIN}")

    places = {name: place for place, _, name in rows}
    return _distinct([(places[names[number]], names[number]) for number in sorted(names)])


def _distinct(rows: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    seen: dict[str, str] = {}
    for place, name in rows:
        if name in seen:
            raise ValueError(f"{place}: class {name!r} stands at {seen[name]} too; {GET_IT_AGAIN}")
        seen[name] = place
    return tuple(seen)


def read_class_words(path: Path, classes: Sequence[str]) -> list[str]:
    """The words for each class: JSON of {class: words}, or a text with one line per class, in the order of `classes`.

    ValueError if a class has no words, or if the numbers of lines and classes differ.
    """
    if path.suffix == ".json":
        content = json_of(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path}: not an object of classes and their words; {GET_IT_AGAIN}")
        for name in classes:
            if not isinstance(content.get(name), str):
                raise ValueError(f"{path}: class {name!r} has no words; add them, or name another file of words")
        return [content[name] for name in classes]

    words = [line for _, line in lines_of(path)]
    if len(words) != len(classes):
        raise ValueError(f"{path}: {len(words)} lines for {len(classes)} classes; write one a class, in their order")
    return words
