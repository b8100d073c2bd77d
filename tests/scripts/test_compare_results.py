import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.compare_results import main
from tasks.metrics.intervals import Outcomes
from tasks.outcomes import OUTCOMES, write_outcomes


def run(folder: Path, right: list[int], names: str, **results: Any) -> Path:
    folder.mkdir()
    described = {"task": "vqa", "dataset": "stories", "split": "test", **results}
    (folder / "results.json").write_text(json.dumps(described))
    values = {"accuracy": np.array(right, float)}
    write_outcomes({"questions": Outcomes("percent", list(names), list(names), values)}, folder / OUTCOMES)
    return folder


def test_common_items_are_paired_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = run(tmp_path / "a", [1, 0, 0, 0], "abcd"), run(tmp_path / "b", [1, 1, 1, 1, 0], "dcbax")
    assert main([str(a), str(b), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    accuracy = found["metrics"]["accuracy"]
    assert (accuracy["a"], accuracy["b"], accuracy["verdict"]) == (25, 100, "B is better")
    assert "1 items that only one result has" in found["notes"][1]
    assert main([str(b), str(a)]) == 0 and "B is worse" in capsys.readouterr().out


def test_several_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [run(tmp_path / name, [int(name in "bd"), 0, 1], "xyz") for name in "abcd"]
    assert main([str(folders[0]), str(folders[2]), "--with", str(folders[1]), str(folders[3])]) == 0
    assert "2 pairs of runs" in capsys.readouterr().out


def test_bad_input_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = run(tmp_path / "a", [1, 0], "ab")
    other = run(tmp_path / "other", [1, 0], "ab", split="val")
    apart = run(tmp_path / "apart", [1, 0], "cd")
    bare = run(tmp_path / "bare", [1], "a")
    (bare / OUTCOMES).unlink()
    torn = run(tmp_path / "torn", [1], "a")
    (torn / OUTCOMES).write_text('{"format": 1, "sets": {"questions": {"statistic": "percent", "items": ["a", "a"], ')
    for words, message in (
        ([a], "give two runs"),
        ([a, tmp_path / "none"], "name the output folder"),
        ([a, other], "differ in split: test and val"),
        ([a, apart], "none of the questions in common"),
        ([a, bare], "evaluate again"),
        ([a, torn], "not JSON"),
        ([a, a, "--with", a], "2 runs cannot be paired with 1"),
    ):
        assert main([str(word) for word in words]) == 2
        assert message in capsys.readouterr().err
