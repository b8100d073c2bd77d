"""What contributors rely on: one version everywhere, quick tests that are quick, hooks that lint like `make lint`."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from configs.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
QUICK = MAKEFILE.split("QUICK := ")[1].split("\n")[0].split()
SLOW = re.compile(r"subprocess|run_ranks|multiprocessing|mark\.(soak|gpu)|tiny_runs")
"""What starts processes or trains. This file does so once, and matches its own pattern."""
ROOMS = ("benchmarks", "configs", "datasets", "engine", "inference", "models", "scripts", "tasks")


def read_yaml(name: str) -> Any:
    return YAML(typ="safe", pure=True).load(ROOT / name)


def test_citation_and_changelog_name_the_version() -> None:
    citation = read_yaml("CITATION.cff")
    assert citation["version"] == VERSION
    assert re.search(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1] == VERSION  # type: ignore[index]
    # The paper of each system, and enough of it to cite.
    papers = {"2310.19060", "2403.13347", "2305.14173", "2302.09736"}
    assert {paper["url"].rpartition("/")[2] for paper in citation["references"]} == papers
    assert all(paper["authors"] and paper["title"] and paper["year"] for paper in citation["references"])


def test_entry_scripts_say_the_version() -> None:
    done = subprocess.run(
        [sys.executable, "pretrain.py", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{VERSION}\n"


@pytest.mark.parametrize("name", QUICK)
def test_quick_tests_are_there_and_start_no_processes(name: str) -> None:
    path = ROOT / name
    files = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
    assert files and all(file.is_file() for file in files)
    slow = [file.name for file in files if SLOW.search(file.read_text(encoding="utf-8"))]
    assert slow == (["test_habits.py"] if name.endswith("test_habits.py") else [])


def test_every_room_has_quick_tests() -> None:
    assert {name.split("/")[1] for name in QUICK} >= set(ROOMS)


def test_the_hooks_are_what_make_lint_runs() -> None:
    recipe = MAKEFILE.split("\nlint:")[1].split("\n\n")[0].splitlines()[1:]
    commands = [line.strip().replace("$(PYTHON)", ".venv/bin/python") for line in recipe]
    hooks = [hook for repository in read_yaml(".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]]
    assert [hook["entry"] for hook in hooks] == commands
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in hooks)
