"""Rows of text, JSON and CSV files, and what is said of bad ones."""

from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.annotations import files
from tests.datasets.annotations.folders import error_of


def test_csv_is_that_of_the_library_with_places(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfid,text\r\n1,"a, ""b""\r\nc"\r\n\r\n2,\xc3\xa9\r\n')
    rows = files.csv_of(path, ("text",))
    assert [row.fields for row in rows] == [{"id": "1", "text": 'a, "b"\r\nc'}, {"id": "2", "text": "é"}]
    assert [row.place for row in rows] == [f"{path}:3", f"{path}:5"]


@pytest.mark.parametrize(
    ("content", "place", "found"),
    [
        (b"", "", "the file is empty"),
        (b"\n \n", "", "the file is empty"),
        (b"id,text\n", "", "no row below the names"),
        (b"id,words\n1,a\n", ":1", "no columns 'text' in id, words"),
        (b"text,text\na,b\n", ":1", "2 columns 'text' in text, text"),
        (b"id,text\n1,a\n2\n", ":3", "1 fields for 2 columns"),
        (b"id,text\n1,a,b\n", ":2", "3 fields for 2 columns"),
        (b'id,text\n1,"a\n', ":2", "not CSV (unexpected end of data)"),
        (b'id,text\n1,"a"b\n', ":2", "not CSV"),
        (b"id,text\n1,a\n2,\xff\n", ":3", "not UTF-8"),
    ],
)
def test_bad_csv(tmp_path: Path, content: bytes, place: str, found: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    text = error_of(lambda: files.csv_of(path, ("text",)))
    assert text.startswith(f"{path}{place}: {found}") and text.endswith(files.GET_IT_AGAIN)


@pytest.mark.parametrize(
    ("content", "place", "found"),
    [
        (b"", "", "the file is empty"),
        (b'[{"a": 1},', "", "not JSON (Expecting value: line 1 column 11"),
        (b'[{"a": 1}] x', "", "not JSON (Extra data: line 1"),
        (b'[\n{"a": "\xe9"}]', ":2", "not UTF-8"),
        (b'{"a": {"b": 1, "c": 2, "b": 1}}', "", "key 'b' stands twice"),
        (b"[" * 100_000, "", "not JSON (maximum recursion depth exceeded"),
        (b"[" + b"1" * 5000 + b"]", "", "not JSON (Exceeds the limit"),
    ],
)
def test_bad_json(tmp_path: Path, content: bytes, place: str, found: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    text = error_of(lambda: files.json_of(path))
    assert text.startswith(f"{path}{place}: {found}") and text.endswith(files.GET_IT_AGAIN)


def test_json_lines_know_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": "\u2028"}\n')
    assert files.json_lines_of(path) == [
        files.Row(f"{path}:1", {"a": 1}),
        files.Row(f"{path}:3", {"a": "\u2028"}),
    ]
    path.write_text('{"a": 1}\n[1]\n')
    assert error_of(lambda: files.json_lines_of(path)).startswith(f"{path}:2: found list, not an object")
    path.write_text('{"a": 1}\n{"a": 1\n')
    assert error_of(lambda: files.json_lines_of(path)).startswith(f"{path}:2: not JSON")


@pytest.mark.parametrize(
    ("read", "value", "found"),
    [
        (files.items_of, {"a": {}}, "f: found dict, not a list of objects"),
        (files.items_of, [], "f: found an empty list, not a list"),
        (files.items_of, [{}, 3], "f: item 1: found int, not an object"),
        (files.entries_of, [{}], "f: found list, not an object of objects"),
        (files.entries_of, {}, "f: found an empty dict, not an object"),
        (files.entries_of, {"a": {}, "b": []}, "f: 'b': found an empty list, not an object"),
    ],
)
def test_other_values_than_objects(read: Callable[[object, str], object], value: object, found: str) -> None:
    assert error_of(lambda: read(value, "f")).startswith(found)


@pytest.mark.parametrize(
    ("fields", "text_error", "paragraph_error"),
    [
        ({}, "f:7: no key 'a'", "f:7: no key 'a'"),
        ({"a": None}, "f:7: a is None, not a text", "f:7: a is None, not a list of texts"),
        ({"a": " \n"}, "f:7: a is ' \\n', not a text", "f:7: a is ' \\n', not a list"),
        ({"a": ["x", 3]}, "f:7: a is ['x', 3], not a text", "f:7: a is ['x', 3], not a list"),
        ({"a": []}, "f:7: a is [], not a text", "f:7: a has no words"),
        ({"a": [" ", ""]}, "f:7: a is [' ', ''], not", "f:7: a has no words"),
        ({"a": 10**3000}, "f:7: a is 1000", "f:7: a is 1000"),
    ],
)
def test_other_values_than_texts(fields: dict[str, object], text_error: str, paragraph_error: str) -> None:
    row = files.Row("f:7", fields)
    for call, begins in ((row.text, text_error), (row.paragraph, paragraph_error)):
        text = error_of(lambda call=call: call("a"))
        assert text.startswith(begins) and len(text) < 200


def test_sentences_are_joined_by_one_space() -> None:
    assert files.Row("f:1", {"a": [" One.", "", "two \n", "three  four"]}).paragraph("a") == "One. two three  four"


def test_unique_names_both_places() -> None:
    rows = [files.Row(f"f:{line}", {"id": name}) for line, name in enumerate("abca", start=1)]
    assert list(files.by_unique(rows[:3], "id")) == ["a", "b", "c"]
    assert error_of(lambda: files.by_unique(rows, "id")).startswith("f:4: id 'a' stands at f:1 too")
