"""Text, JSON and CSV files as rows that know their place, so that every error names the file and the line."""

import csv
import io
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.annotations import strict_json
from datasets.text import check_text

GET_IT_AGAIN = "get the file again, docs/DATASETS.md says where"


@dataclass(frozen=True)
class Row:
    """One object of a JSON file or one row of a table; `place`, as `file:line` or `file: item 3`, begins its errors.

    Lines are counted from 1, as editors do, and the items of a JSON list from 0, as programs do.
    """

    place: str
    fields: dict[str, Any]

    def value(self, key: str) -> Any:
        """The value of `key`; ValueError if there is no such key."""
        if key not in self.fields:
            raise ValueError(f"{self.place}: no key {key!r}; {GET_IT_AGAIN}")
        return self.fields[key]

    def text(self, key: str) -> str:
        """The text under `key`, unchanged; ValueError if it is not a text or is blank."""
        value = self.value(key)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{self.place}: {key} is {reprlib.repr(value)}, not a text; {GET_IT_AGAIN}")
        return value

    def paragraph(self, key: str) -> str:
        """The sentences listed under `key` as one text; ValueError if they are not a list of texts or all blank."""
        value = self.value(key)
        if not isinstance(value, list) or not all(isinstance(sentence, str) for sentence in value):
            raise ValueError(f"{self.place}: {key} is {reprlib.repr(value)}, not a list of texts; {GET_IT_AGAIN}")
        text = join_sentences(value)
        if not text:
            raise ValueError(f"{self.place}: {key} has no words; {GET_IT_AGAIN}")
        return text


def join_sentences(sentences: Iterable[str]) -> str:
    """Join sentences in order, with one space in between; white space around each is removed."""
    return " ".join(sentence.strip() for sentence in sentences if sentence.strip())


def text_of(path: Path) -> str:
    """The whole file, UTF-8 with or without a byte order mark; ValueError names the line that is not UTF-8."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8 ({error.reason}); {GET_IT_AGAIN}") from None
    if not text.strip():
        raise ValueError(f"{path}: the file is empty; {GET_IT_AGAIN}")
    return text


def lines_of(path: Path) -> list[tuple[str, str]]:
    """The lines that are not blank, stripped, as (place, line)."""
    lines = text_of(path).split("\n")
    found = [(f"{path}:{number}", line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    for place, line in found:
        check_text(line, f"{place}: the line")
    return found


def json_of(path: Path) -> Any:
    """The one value of a JSON file; ValueError for anything else, and for objects that name a key twice."""
    return _parse_json(text_of(path), str(path))


def _parse_json(text: str, place: str) -> Any:
    try:
        return strict_json.loads(text)
    except strict_json.RepeatedKeyError as error:
        raise ValueError(f"{place}: {error}; {GET_IT_AGAIN}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not JSON ({error}); {GET_IT_AGAIN}") from None


def items_of(items: Any, place: str) -> list[Row]:
    """The objects of a JSON list; ValueError if it is not a list of at least one, all of them objects."""
    if not isinstance(items, list) or not items:
        raise ValueError(f"{place}: found {_kind(items)}, not a list of objects; {GET_IT_AGAIN}")
    return [_row(item, f"{place}: item {position}") for position, item in enumerate(items)]


def entries_of(mapping: Any, place: str) -> dict[str, Row]:
    """The objects of a JSON object by their keys; ValueError if it is not an object of at least one, all objects."""
    if not isinstance(mapping, dict) or not mapping:
        raise ValueError(f"{place}: found {_kind(mapping)}, not an object of objects; {GET_IT_AGAIN}")
    for key in mapping:
        check_texts(key, f"{place}: a key")
    return {key: _row(entry, f"{place}: {key!r}") for key, entry in mapping.items()}


def json_lines_of(path: Path) -> list[Row]:
    """The objects of a JSONL file, one per line; blank lines are skipped."""
    return [_row(_parse_json(line, place), place) for place, line in lines_of(path)]


def _row(value: Any, place: str) -> Row:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: found {_kind(value)}, not an object; {GET_IT_AGAIN}")
    for key, field in value.items():
        check_texts(field, f"{place}: {key}")
    return Row(place, value)


def check_texts(value: Any, name: str) -> None:
    """ValueError, which calls it `name`, if a text, or one in a list of texts, cannot be used (`check_text`)."""
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str):
            check_text(text, name)


def _kind(value: Any) -> str:
    empty = "an empty " if isinstance(value, (list, dict)) and not value else ""
    return f"{empty}{type(value).__name__}"


def csv_of(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a table whose first line names its columns, including `columns`; all fields are texts.

    ValueError for a missing column, a row whose length differs from the first line, or an unclosed quote.
    """
    # `newline=""`: the reader itself handles line ends inside quotes.
    reader = csv.reader(io.StringIO(text_of(path), newline=""), strict=True)
    rows: list[Row] = []
    names: list[str] | None = None
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise ValueError(f"{path}:{reader.line_num}: not CSV ({error}); {GET_IT_AGAIN}") from None

        place = f"{path}:{reader.line_num}"
        if not fields:
            continue
        if names is None:
            names = fields
            for column in columns:
                if names.count(column) != 1:
                    found = f"{names.count(column) or 'no'} columns {column!r} in {', '.join(names)}"
                    raise ValueError(f"{place}: {found}; {GET_IT_AGAIN}")
        elif len(fields) != len(names):
            raise ValueError(f"{place}: {len(fields)} fields for {len(names)} columns; {GET_IT_AGAIN}")
        else:
            rows.append(_row(dict(zip(names, fields, strict=True)), place))
    if not rows:
        raise ValueError(f"{path}: no row below the names of the columns; {GET_IT_AGAIN}")
    return rows


def by_unique(rows: Iterable[Row], key: str) -> dict[str, Row]:
    """The rows by their text under `key`; if two rows share a text, ValueError names the second."""
    found: dict[str, Row] = {}
    for row in rows:
        text = row.text(key)
        if text in found:
            raise ValueError(f"{row.place}: {key} {text!r} stands at {found[text].place} too; {GET_IT_AGAIN}")
        found[text] = row
    return found
