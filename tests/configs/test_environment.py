"""Every entry point, run by a Python that lacks our packages or is too old, says so in one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs import environment

ROOT = Path(__file__).resolve().parents[2]
MAIN = re.compile(r'^if __name__ == "__main__":', re.MULTILINE)
MODULES = [path for path in ROOT.rglob("*.py") if not {"tests", ".venv"} & {*path.relative_to(ROOT).parts}]
ENTRY_POINTS = sorted(path for path in MODULES if MAIN.search(path.read_text()) or path.name == "__main__.py")
ENTRY_POINTS += [ROOT / "tests" / "parity" / "check.py"]


def words_to_run(path: Path) -> list[str]:
    """What stands after `python` in the documentation."""
    inside = path.relative_to(ROOT)
    if len(inside.parts) == 1:
        return [str(inside)]
    return ["-m", ".".join(inside.with_suffix("").parts).removesuffix(".__main__")]


def test_the_entry_points_are_found() -> None:
    names = {words_to_run(path)[-1] for path in ENTRY_POINTS}
    assert len(ENTRY_POINTS) > 20
    assert {"pretrain.py", "train_retrieval.py", "scripts.reproduce", "scripts.demo", "benchmarks"} <= names


@pytest.mark.parametrize("path", ENTRY_POINTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_without_packages_an_entry_point_names_make_setup_in_one_line(path: Path) -> None:
    # -S leaves out site-packages, and with them all that is not Python's own.
    command = [sys.executable, "-S", *words_to_run(path), "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == ""
    assert re.match(r"error: \S+ lacks torch, .*ruamel.yaml.*: .*`make setup`", line)


def test_a_python_that_is_too_old_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        environment.check_environment((3, 9))
    said = capsys.readouterr().err
    assert said.startswith(f"error: {sys.executable} is Python 3.9, and 3.11, 3.12 or 3.13 is needed: ")
    assert "make setup" in said and said.count("\n") == 1
    environment.check_environment((3, 11))


def test_what_is_there_is_found_and_what_is_not_is_not() -> None:
    assert environment.is_installed("ruamel.yaml") and environment.is_installed("json")
    assert not environment.is_installed("no_such_package") and not environment.is_installed("no_such.package")


def test_the_check_itself_takes_no_package() -> None:
    code = "import sys, configs.environment as e; e.NEEDED = (); e.check_environment()"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
