"""Every command of docs/RUN.md: its scripts and configurations are there, and its settings load."""

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.reducers import __main__ as reducers
from benchmarks.stoa import alignment, objects
from configs.load import apply_overrides, load_any
from configs.schema import CONFIG_CLASSES, TASKS, RunConfig
from scripts import compare_results, make_story_videos, search
from scripts.app import __main__ as app
from scripts.reproduce import __main__ as reproduce
from tests.integration.runs import ROOT

TEXT = (ROOT / "docs" / "RUN.md").read_text(encoding="utf-8")
CLASSES: dict[str, type[RunConfig]] = {entry.script: entry.config for entry in TASKS.values() if entry.script in TEXT}

READ_BY = {
    "scripts.app": app.parse_arguments,
    "scripts.compare_results": compare_results.parse_arguments,
    "scripts.search": search.parse_arguments,
    "scripts.make_story_videos": make_story_videos.parse_arguments,
    "benchmarks.reducers": reducers.parse_arguments,
    "benchmarks.stoa.alignment": alignment.parse_arguments,
    "benchmarks.stoa.objects": objects.parse_arguments,
}
"""What reads the command line of these; a wrong one ends the test."""


def commands() -> list[list[str]]:
    """The words of each command in the document's shell blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def start_of(words: list[str]) -> list[str]:
    """The script and what follows it, without the launcher, its options and its variables; `make app` is its script."""
    if words[:2] == ["make", "app"]:
        given = dict(word.split("=", 1) for word in words[2:])
        return ["-m", "scripts.app", "--index", given.pop("INDEX"), *shlex.split(given.pop("OPTIONS")), *given]
    first = next(place for place, word in enumerate(words) if word.endswith(".py") or word == "-m")
    return words[first:]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_are_real(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for word in words:
        if word.startswith(("scripts/", "configs/")):
            assert (ROOT / word).is_file(), word
    script, *rest = start_of(words)
    if script == "-m":
        check_module(rest, capsys)
        return
    assert (ROOT / script).is_file()
    settings = [word for word in rest if "=" in word]
    options = [word for word in rest if "=" not in word]
    if "--config" in options:
        path = ROOT / options[options.index("--config") + 1]
        assert isinstance(load_any(CONFIG_CLASSES, path, settings), CLASSES[script])
    else:
        assert options == ["--evaluate"]
        assert apply_overrides({}, settings, CLASSES[script])["checkpoint"]


def check_module(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    module, *rest = words
    if module == "scripts.count_flops":
        assert load_any(CONFIG_CLASSES, ROOT / rest[1], rest[2:])
        return
    if module in READ_BY:
        assert READ_BY[module](rest)
        return
    assert module == "scripts.reproduce"
    weights = "README.md"  # some file that is there
    asked = [weights if word == "FILE" else word for word in rest]
    assert reproduce.main([*asked, "--dry-run"] if asked and "--dry-run" not in asked else asked) == 0
    printed = capsys.readouterr().out
    assert weights in printed if "FILE" in rest else printed


def test_the_document_has_a_command_of_every_kind() -> None:
    starts = {start_of(words)[0] for words in commands()}
    assert starts == {*CLASSES, "-m"} and len(commands()) > 20
    launched = {word for words in commands() for word in words if word.startswith("scripts/launch/")}
    assert launched == {f"scripts/launch/{path.name}" for path in (ROOT / "scripts" / "launch").iterdir()}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\]\((\w+\.md)\)", TEXT))))
def test_documents_it_points_to_are_there(name: str) -> None:
    assert (Path(ROOT) / "docs" / name).is_file()
