"""The benchmark's command line, end to end and with quick ways in the place of real ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as benchmark
from benchmarks.measure import Case, Row
from benchmarks.settings import Settings
from tests.benchmarks import ways

ROOT = Path(__file__).resolve().parents[2]
KEYS = [
    "name",
    "ours_s",
    "naive_s",
    "limit_s",
    "peer_s",
    "ours_over_limit",
    "naive_over_ours",
    "peak_bytes_ours",
    "peak_bytes_naive",
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark `encoder` is that of `ways`."""
    monkeypatch.setitem(benchmark.BENCHMARKS["testa"], "encoder", ways.MODULE)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    try:
        benchmark.main()
    except SystemExit as exit:
        return int(exit.code or 0)
    return 0


def test_a_small_encoder_from_the_command_line() -> None:
    """Of joint attention, which has no reference and so needs fewer processes; test_encoder.py has the others."""
    model = ["model.attention=joint", "model.depth=1", "model.width=32", "model.heads=2", "model.patch_size=8"]
    done = subprocess.run(
        [*f"{sys.executable} -m benchmarks encoder --json --rounds 1 --threads 1".split()]
        + ["--config", "configs/debug/clips.yaml", *model, "video.image_size=16"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    names = [f"encoder {dtype}, 6 frames, batch 1, no aggregation" for dtype in ("fp32", "bf16")]
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert list(row) == KEYS
        assert row["ours_over_limit"] == row["limit_s"] / row["ours_s"]
        assert (row["peer_s"], row["naive_s"], row["naive_over_ours"]) == (None, None, None)


@pytest.mark.usefixtures("quick", "in_this_process")
def test_json_has_exactly_the_keys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "encoder", "--json", "--rounds", "3") == 0
    whole, alone = json.loads(capsys.readouterr().out)
    assert list(whole) == list(alone) == KEYS
    assert {name: whole[name] for name in KEYS[:7]} == {
        "name": "whole",
        "ours_s": 2.0,
        "naive_s": 3.0,
        "limit_s": 1.5,
        "peer_s": 2.5,
        "ours_over_limit": 0.75,
        "naive_over_ours": 1.5,
    }
    assert [alone[name] for name in KEYS[1:7]] == [0.002, None, None, None, None, None]
    assert alone["peak_bytes_naive"] is None


@pytest.mark.usefixtures("quick", "in_this_process")
def test_the_table_names_the_machine_and_has_spreads_and_notes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "encoder", "--rounds", "1", "--threads", "1") == 0
    machine, _, header, whole, alone, _, note = capsys.readouterr().out.splitlines()
    assert f"torch {torch.__version__}" in machine and "1 threads" in machine and "1 rounds" in machine
    assert header.split()[:6] == ["ours", "naive", "limit", "peer", "ours/limit", "naive/ours"]
    assert "2 s (2 .. 2)" in whole and "0.750" in whole and "1.500" in whole
    assert "2 ms (2 .. 2)" in alone and alone.startswith("alone ")
    assert whole.index("2 s") == alone.index("2 ms") == header.index("ours")
    assert note == "2 rows"


@pytest.mark.soak
@pytest.mark.usefixtures("quick")
def test_a_way_that_fails_is_told_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "encoder", "--json", "--rounds", "1", "seed=13") == 1
    said = capsys.readouterr()
    assert [row["name"] for row in json.loads(said.out)] == ["whole", "alone"]
    assert "error: fails: " in said.err and "cannot be built" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encoder", "model.widht=3"], "command line: model.widht"),
        (["encoder", "--system", "tseta"], "--system: tseta has no benchmarks; there are benchmarks of testa"),
        (["encoder", "--config", "configs/none.yaml"], "configs/none.yaml"),
        (["encoder", "--data", "."], "--data: has no effect on encoder"),
        (["load", "--data", "no/such/folder"], "no/such/folder is no folder"),
        (["rerank", "--plots", "x"], "no figure of rerank"),
        (["encoder", "--plots", "x", "--json"], "leave out --json"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert run(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and message in said.err
    assert len(said.err.splitlines()) == 1


def test_a_gpu_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(monkeypatch, "encoder", "--device", "cuda") == 2
    assert "no GPU that PyTorch can use" in capsys.readouterr().err


def test_every_benchmark_has_cases() -> None:
    for module in (module for benchmarks in benchmark.BENCHMARKS.values() for module in benchmarks.values()):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


@pytest.mark.usefixtures("in_this_process")
def test_rows_of_another_system_begin_with_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(benchmark.BENCHMARKS, "toy", {"encoder": ways.MODULE})
    assert run(monkeypatch, "encoder", "--system", "toy", "--json", "--rounds", "1") == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["toy whole", "toy alone"]

    assert run(monkeypatch, "rerank", "--system", "toy") == 2
    assert "--system toy: has no benchmark rerank, only encoder" in capsys.readouterr().err
    assert run(monkeypatch, "encoder", "--system", "toy", "--plots", "x") == 2
    assert "--plots: there are figures of testa only" in capsys.readouterr().err


@pytest.mark.usefixtures("quick", "in_this_process")
def test_cases_are_chosen_by_their_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "encoder", "--json", "--only", "al", "--only", "one") == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["alone"]
    assert run(monkeypatch, "encoder", "--json", "--only", "al", "--only", "whole") == 2
    assert "--only: no case contains al and whole; there are: whole; alone" in capsys.readouterr().err


@pytest.mark.usefixtures("quick", "in_this_process")
def test_rows_are_kept_once_they_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "new" / "rows.json"
    command = ("encoder", "--json", "--rounds", "3", "--keep", str(path))
    assert run(monkeypatch, *command, "--only", "whole") == 0
    capsys.readouterr()
    (entry,) = json.loads(path.read_text())
    assert entry["row"]["name"] == "whole" and f"torch {torch.__version__}" in entry["machine"]

    # The next call measures what is left, and prints both.
    measured: list[str] = []
    measure = benchmark.measure

    def noting(case: Case, settings: Settings) -> Row:
        measured.append(case.name)
        return measure(case, settings)

    monkeypatch.setattr(benchmark, "measure", noting)
    assert run(monkeypatch, *command) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["whole", "alone"]
    assert measured == ["alone"]
    assert [entry["row"]["name"] for entry in json.loads(path.read_text())] == ["whole", "alone"]

    # Under other settings nothing of it counts; a file of something else is refused.
    assert run(monkeypatch, *command, "--threads", "1", "train.batch_size=3") == 0
    assert measured == ["alone", "whole", "alone"]
    capsys.readouterr()
    path.write_text("no JSON")
    assert run(monkeypatch, *command) == 2
    assert "rows.json holds no JSON" in capsys.readouterr().err
