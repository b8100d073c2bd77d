"""docs/TUTORIAL.md, every command as it stands there: each succeeds, prints and writes what the text says."""

import re
import shlex
from pathlib import Path

import pytest

from configs.load import load_any
from configs.schema import CONFIG_CLASSES
from scripts.app import __main__ as app
from tests.integration.runs import ROOT, results_of, start

TEXT = (ROOT / "docs" / "TUTORIAL.md").read_text(encoding="utf-8")
SECTIONS = TEXT.split("\n## ")[1:]
PROMISED = re.findall(r"`(outputs/[\w./]+)`", TEXT)
ONLY_AFTER_FAILURES = "outputs/mine/small/failures.jsonl"


def blocks(section: str, language: str = "") -> list[str]:
    """The code of a section in one language, or its blocks of printed output."""
    return [code for name, code in re.findall(r"```(\w*)\n(.*?)```", section, flags=re.DOTALL) if name == language]


def command_of(section: str) -> str:
    (command,) = blocks(section, "bash")
    return command


def words_of(command: str) -> list[str]:
    return shlex.split(command.replace("\\\n", ""))  # shells join such lines, shlex does not


def run(command: str) -> int:
    """The exit status of a command, run in this process."""
    program = re.fullmatch(r"python - <<'END'\n(.*)END\n", command, flags=re.DOTALL)
    if program is not None:
        exec(compile(program[1], "TUTORIAL.md", "exec"), {"__name__": "__main__"})
        return 0
    python, *words = words_of(command)
    assert python == "python"
    if words[0] == "-m":
        module = words[1].replace(".", "/")
        is_package = (ROOT / module).is_dir()
        return start(f"{module}/__main__" if is_package else module, *words[2:])
    return start(words[0].removesuffix(".py"), *words[1:])


def pattern_of(line: str) -> str:
    """What matches a line of the text's output: `...` stands for anything, and numbers with a point may differ."""
    parts = re.split(r"(\.\.\.|-?\b\d+\.\d+\b)", line.strip())
    kinds = {True: lambda part: ".*" if part == "..." else r"-?\d[\d.e-]*", False: re.escape}
    return "".join(kinds[bool(place % 2)](part) for place, part in enumerate(parts))


def assert_printed(section: str, printed: str) -> None:
    """Every line of output that the text shows was printed, in its order."""
    lines = iter(line.strip() for line in re.split(r"[\r\n]", printed))
    for shown in "".join(blocks(section)).splitlines():
        assert any(re.fullmatch(pattern_of(shown), line) for line in lines), f"{shown!r} is not in\n{printed[-3000:]}"


def test_ten_commands_lead_from_videos_to_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    printed = []
    for section in SECTIONS[:-1]:
        assert run(command_of(section)) == 0, f"{section.splitlines()[0]}\n{''.join(capfd.readouterr())}"
        printed.append("".join(capfd.readouterr()))
        assert_printed(section, printed[-1])

    missing = [name for name in PROMISED if not Path(name).exists()]
    assert missing == [ONLY_AFTER_FAILURES] and len(PROMISED) > 10
    learned, held_out = (results_of(Path("outputs/mine") / name) for name in ("model", "held_out"))
    assert learned["metrics"]["t2v_r1"] == 100 and learned["num_videos"] == 12 and held_out["num_videos"] == 4
    asked = {line.split()[-1]: float(line.split()[0]) for line in printed[5].splitlines() if re.match(r"-?\d\.", line)}
    assert len(asked) == 3 and max(asked, key=asked.__getitem__).endswith("train_00001.mp4")
    assert_found_first(command_of(SECTIONS[8]), printed[8])
    # The page's own tests open it; here, that it would find its index.
    options = app.parse_arguments(words_of(command_of(SECTIONS[10]))[3:])
    assert options.index.is_dir() and blocks(SECTIONS[10])[0].startswith(f"the page is at http://{options.host}:")


def assert_found_first(query: str, printed: str) -> None:
    """The video whose description the query is stands first, and the text says so."""
    paragraph = words_of(query)[4]
    lines = Path("outputs/mine/train.jsonl").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if paragraph in line]
    (first,) = re.findall(r"^ *1\. .*/(\w+\.mp4)$", printed, flags=re.MULTILINE)
    assert f'"{first}"' in line and f"/{first}\n" in blocks(SECTIONS[8])[0]


def test_there_are_ten_commands_and_one_to_have_videos() -> None:
    assert [int(section.split(".")[0]) for section in SECTIONS] == list(range(11))
    assert all(len(blocks(section, "bash")) == 1 for section in SECTIONS)


@pytest.mark.parametrize("command", [code for code in blocks(TEXT, "sh") if "--config" in code])
def test_commands_for_gpus_have_settings_that_load(command: str) -> None:
    words = words_of(command)
    path = ROOT / words[words.index("--config") + 1]
    assert load_any(CONFIG_CLASSES, path, [word for word in words if re.match(r"[a-z_.]+=", word)])
