"""What the documentation names exists: tests of docs/NUMERICS.md, files of README.md's tree and commands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NUMERICS = (ROOT / "docs" / "NUMERICS.md").read_text()
CLUSTER = (ROOT / "docs" / "CLUSTER.md").read_text()
README = (ROOT / "README.md").read_text()
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
}


def test_every_departure_names_a_test() -> None:
    rows = [line for line in NUMERICS.splitlines() if line.startswith("|") and not line.startswith(("|---", "| what"))]
    assert len(rows) > 20
    for row in rows:
        assert re.search(r"`\S+test_\S+\.py(::\w+)?` \|$", row), row


def test_every_fault_names_a_test() -> None:
    rows = [line for line in CLUSTER.splitlines() if line.startswith("|")]
    faults = rows[rows.index("| fault | what happens | test |") + 2 :]
    faults = faults[: next((place for place, row in enumerate(faults) if row.count("|") != 4), len(faults))]
    assert len(faults) > 20
    for row in faults:
        assert re.search(r"`\S*test_\S+\.py(::\w+)?` \|$", row), row


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(\S*test_\S+\.py(?:::\w+)?)`", NUMERICS + CLUSTER))))
def test_tests_that_the_documents_name_are_there(name: str) -> None:
    path, _, test = name.partition("::")
    text = (ROOT / "tests" / path).read_text()
    assert f"def {test}" in text or not test


@pytest.mark.parametrize("config", sorted(set(re.findall(r"configs/[\w/]+\.yaml", README))))
def test_configs_that_the_readme_names_are_there(config: str) -> None:
    assert (ROOT / config).is_file()


COMMANDS = re.findall(r"-m ((?:benchmarks|engine|scripts|tests)(?:\.[a-z_]+)*)\b(?!\.)", "\n".join(DOCUMENTS.values()))


@pytest.mark.parametrize("name", sorted(set(COMMANDS)))
def test_commands_that_the_documents_name_are_there(name: str) -> None:
    path = ROOT.joinpath(*name.split("."))
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_source_files_that_the_documents_name_are_there(document: str) -> None:
    rooms = "configs|models|datasets|tasks|engine|inference|scripts|benchmarks"
    # Paths of tests are relative to tests/ and checked above; NAME and the like stand for any name.
    named = set(re.findall(rf"(?<![\w/.])(?:{rooms})/[\w/]+\.(?:py|yaml)\b", DOCUMENTS[document]))
    own = {name for name in named if not re.search(r"[A-Z]{3}|/test_|/mine\.yaml", name)}
    assert {name for name in own if not (ROOT / name).is_file()} == set()


def test_files_of_the_readme_tree_are_there() -> None:
    tree = README.split("```\npretrain.py")[1].split("```")[0]
    names = re.findall(r"\b(\w+\.(?:py|md))\b", tree)
    everything = {path.name for path in ROOT.rglob("*") if ".venv" not in path.parts}
    assert len(names) >= 5
    assert not set(names) - everything


def test_folders_of_the_readme_tree_are_there() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    folders = []
    top = ROOT
    for line in tree.splitlines():
        # A name at the start of a line is at the top; all others on it, and on indented lines below, are inside.
        if starts := re.match(r"(\w+)/", line):
            top = ROOT / starts[1]
            folders.append(top)
        for name in re.findall(r"[ {/,](\w+)/", line):
            folders.append(top / name)

    assert len(folders) > 20
    assert [folder for folder in folders if not folder.is_dir()] == []


def anchor(heading: str) -> str:
    """The name that a heading has in links."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", DOCUMENTS[document]):
        if "://" in target:
            continue
        name, _, section = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        headings = (
            re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
            if path.suffix == ".md" and path.exists()
            else []
        )
        if not path.exists() or (section and section not in map(anchor, headings)):
            broken.append(target)
    assert broken == []


def test_the_index_names_every_document() -> None:
    named = set(re.findall(r"\]\((\w+\.md)", DOCUMENTS["docs/README.md"]))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
