"""`make setup` and `make clean` in a copy of the project with a stand-in for Python: nothing is installed.

The stand-in for pip writes the metadata of the packages that it is asked for, and a line in a log.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("Makefile", "scripts/set_up.sh", ".gitignore")
PYTHON = f"""#!/bin/sh
case "$1 $2" in
  "-c "*) exit 0 ;;
  "--version "*) echo "Python 3.12.0" ;;
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo venv >> installed.log ;;
  "-m pip")
    [ ! -e pip_fails ] || exit 1
    grep == requirements.txt | sed 's/==/-/' | while read -r package; do
      mkdir -p ".venv/site/$package.dist-info"
      echo "Version: ${{package##*-}}" > ".venv/site/$package.dist-info/METADATA"
    done
    echo pip >> installed.log ;;
  *) PYTHONPATH="$PWD/.venv/site" exec {sys.executable} -S "$@" ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what sets up, whose requirements are two packages."""
    folder = tmp_path / "clone"
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "requirements.txt").write_text("# two\nfirst==1.0\nsecond==2.5.1\n")
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    (stand_ins / "python3.13").write_text(PYTHON)
    (stand_ins / "python3.13").chmod(0o755)
    return folder


def make(clone: Path, target: str = "setup") -> subprocess.CompletedProcess[str]:
    # A make that runs these tests leaves settings of its own, and its children say which folder they enter.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment = {**inherited, "PATH": f"{clone.parent / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(["make", target], cwd=clone, env=environment, capture_output=True, text=True, check=False)


def log(clone: Path) -> list[str]:
    path = clone / "installed.log"
    return path.read_text().split() if path.exists() else []


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal, before make's own."""
    line, makes_own = done.stderr.splitlines()
    assert done.returncode and makes_own.startswith("make: ***") and done.stdout == ""
    return line


def test_the_environment_is_made_once(clone: Path) -> None:
    first, second = make(clone), make(clone)
    assert (first.returncode, second.returncode, log(clone)) == (0, 0, ["venv", "pip"]), first.stderr
    assert first.stdout == "Setting up .venv with Python 3.12.0 ...\n" and second.stdout + second.stderr == ""


def test_contents_decide_and_times_do_not(clone: Path) -> None:
    make(clone)
    requirements = clone / "requirements.txt"
    os.utime(requirements, (2e9, 2e9))
    make(clone)
    assert log(clone) == ["venv", "pip"]
    requirements.write_text("# two\nfirst==1.0\nsecond==2.6\n")
    os.utime(requirements, (1e9, 1e9))
    make(clone)
    assert log(clone) == ["venv", "pip"] * 2
    assert [path.name for path in (clone / ".venv/site").glob("second*")] == ["second-2.6.dist-info"]
    (clone / ".venv/bin/python").unlink()  # as after an upgrade of the system's Python
    make(clone)
    assert log(clone) == ["venv", "pip"] * 3


def test_a_wheels_own_mark_is_no_other_version(clone: Path) -> None:
    make(clone)
    metadata = clone / ".venv/site/first-1.0.dist-info"
    (metadata / "METADATA").write_text("Version: 1.0+cpu\n")
    metadata.rename(metadata.with_name("first-1.0+cpu.dist-info"))
    make(clone)
    assert log(clone) == ["venv", "pip"]


def test_an_interrupted_set_up_is_done_again(clone: Path) -> None:
    (clone / "pip_fails").touch()
    assert make(clone).returncode != 0
    (clone / "pip_fails").unlink()
    assert make(clone).returncode == 0 and log(clone) == ["venv", "venv", "pip"]


@pytest.mark.parametrize("command", ["setup", "clean"])
def test_what_a_link_points_to_is_never_cleared(clone: Path, command: str) -> None:
    """The folder looks as if `make setup` had made it, and lacks a package."""
    elsewhere = clone.parent / "elsewhere"
    (elsewhere / "bin").mkdir(parents=True)
    (elsewhere / "requirements.installed").touch()
    (elsewhere / "thesis.tex").write_text("precious")
    (clone / ".venv").symlink_to(elsewhere)
    done = make(clone, command)
    if command == "setup":
        assert refusal(done) == (
            f"make: .venv is a link to {elsewhere}, which lacks what requirements.txt names; remove the link to have "
            "it made"
        )
    assert (clone / ".venv").is_symlink() == (command == "setup")
    assert (elsewhere / "thesis.tex").read_text() == "precious" and log(clone) == []


def test_a_link_to_a_complete_environment_is_used(clone: Path) -> None:
    make(clone)
    (clone / ".venv").rename(clone.parent / "elsewhere")
    # Its packages are looked up by the stand-in in the clone's .venv, which is the link now.
    (clone / ".venv").symlink_to(clone.parent / "elsewhere")
    os.utime(clone / "requirements.txt", (2e9, 2e9))
    assert make(clone).returncode == 0 and log(clone) == ["venv", "pip"]


@pytest.mark.parametrize("command", ["setup", "clean"])
def test_a_folder_of_somebody_elses_is_never_cleared(clone: Path, command: str) -> None:
    (clone / ".venv").mkdir()
    (clone / ".venv/notes.txt").write_text("precious")
    done = make(clone, command)
    if command == "setup":
        assert refusal(done).startswith("make: .venv was not made by `make setup` and lacks what requirements.txt")
    else:
        assert done.stderr == "make: .venv was not made by `make setup` and stays\n"
    assert (clone / ".venv/notes.txt").read_text() == "precious" and log(clone) == []


def test_an_own_environment_is_removed(clone: Path) -> None:
    make(clone)
    assert make(clone, "clean").returncode == 0 and not (clone / ".venv").exists()


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_clone_is_unchanged_by_its_environment(clone: Path, kind: str) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=clone, check=True)
    target = clone / ".venv" if kind == "folder" else clone.parent / "elsewhere"
    target.mkdir()
    (target / "pyvenv.cfg").touch()
    if kind == "link":
        (clone / ".venv").symlink_to(target)
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert ".venv" not in status.stdout and ".gitignore" in status.stdout
