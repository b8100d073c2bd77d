"""How commands are built: none is a library of another, and parsed arguments stay in the function that parses."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_layout import ROOT, imported

SOURCES = sorted(path for room in ("benchmarks", "engine", "scripts") for path in (ROOT / room).rglob("*.py"))


def command_of(path: Path) -> str:
    """The name after `scripts.` or `benchmarks.` that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[1]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parameters(path: Path) -> Iterator[tuple[str, str]]:
    """Function, and the annotation of each of its parameters."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                yield node.name, ast.unparse(argument.annotation) if argument.annotation else ""


@pytest.mark.parametrize("path", [path for path in SOURCES if "scripts" in path.parts], ids=name_of)
def test_no_command_imports_another(path: Path) -> None:
    commands = {name.split(".")[1] for name in imported(path) if name.startswith("scripts.")}
    assert commands <= {"parts", command_of(path)}


@pytest.mark.parametrize("path", [path for path in SOURCES if "benchmarks" in path.parts], ids=name_of)
def test_benchmarks_import_only_what_commands_share(path: Path) -> None:
    assert {name.split(".")[1] for name in imported(path) if name.startswith("scripts.")} <= {"parts"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_function_is_handed_parsed_arguments(path: Path) -> None:
    assert [function for function, annotation in parameters(path) if "Namespace" in annotation] == []


def test_a_function_that_is_handed_them_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "command.py"
    path.write_text("def run(out: Path, *, options: argparse.Namespace | None) -> int:\n    return 0\n")
    assert list(parameters(path)) == [("run", "Path"), ("run", "argparse.Namespace | None")]
