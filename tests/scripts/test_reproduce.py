"""The whole command on a stand-in for a row: small videos, a small model, the public entry script."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from configs.load import to_dict
from scripts.parts.commands import ROOT, run_command
from scripts.parts.rows.evaluated_sets import CONDENSED_MOVIES
from scripts.parts.rows.row import EvaluatedSet, Row
from scripts.parts.rows.table import ROWS
from scripts.parts.rows.testa import PAPER
from scripts.reproduce import __main__ as reproduce, verdict
from tests.integration.runs import start, train, write_config
from tests.tiny_runs import caption, config, write_data

VIDEOS = 5
ANY_MODEL = {"t2v_r1": 50.0, "t2v_r5": 100.0, "t2v_r10": 100.0}
"""Recall of 5 videos that every model is within 50 points of."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained small model."""
    root = write_data(tmp_path_factory.mktemp("trained"), [1] * VIDEOS)
    return train(root, root / "run", train={"max_epochs": 1}) / "checkpoint_best"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of datasets, of which there is one."""
    return write_data(tmp_path / "data" / "small", [1] * VIDEOS).parent


@pytest.fixture
def row(data: Path, monkeypatch: pytest.MonkeyPatch) -> Row:
    """The row `tiny` among the others."""
    root = data / "small"
    path = write_config("retrieval", root, "tiny.yaml", train={"max_epochs": 1}, output_dir=None)
    row = Row(
        tables=("0",),
        label="a stand-in",
        dataset=EvaluatedSet(title="Small", split="captions", videos=VIDEOS, texts=VIDEOS, counted="in this test"),
        config=str(path),
        gmacs=verdict.count_gmacs({"task": "retrieval", "config": to_dict(config("retrieval", root))}),
        published_gmacs="not printed",
        expected={PAPER: ANY_MODEL},
    )
    monkeypatch.setitem(ROWS, row.name, row)
    monkeypatch.setattr(verdict, "TOLERANCE", {"trained": 50.0, "given": 50.0})
    return row


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run as calls, which is faster."""

    def run_command(words: tuple[str, ...], variables: object) -> None:
        if start(words[0].removesuffix(".py"), *words[1:]):
            raise ValueError(f"{words[0]}: failed")

    monkeypatch.setattr(reproduce, "run_command", run_command)


def said_by(out: Path) -> dict[str, Any]:
    return json.loads((out / "tiny" / "reproduce.json").read_text())


def test_training_and_evaluation_through_the_public_commands(
    row: Row, data: Path, weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = [
        "tiny",
        "seed=3",
        "--data",
        str(data),
        "--out",
        str(out),
        "--start",
        str(weights),
        "objective.vtc_keys=local",
    ]
    assert reproduce.main(asked) == 0
    printed = capfd.readouterr().out
    said = said_by(out)
    assert (said["verdict"], said["weights"], said["tables"]) == ("match", "trained", ["0"])
    assert said["evaluated"]["num_videos"] == said["evaluated"]["num_annotated"] == said["official"]["videos"] == VIDEOS
    results = json.loads((out / "tiny" / "evaluation" / "results.json").read_text())
    assert results["checkpoint"] == str(out / "tiny" / "training" / "checkpoint_best")
    assert results["metrics"] == said["got"] and results["config"]["seed"] == 3
    assert said["gmacs"]["got"] == said["gmacs"]["expected"] == row.gmacs
    assert len(said["commands"]) == 2 and all(f"$ {line}" in printed for line in said["commands"])
    assert "trained on 8 GPUs" in printed and "verdict    match: " in printed


def test_a_missing_video_is_no_match_whatever_the_recall(
    row: Row, data: Path, weights: Path, tmp_path: Path, in_process: None
) -> None:
    (data / "small" / "videos" / "2.mp4").unlink()
    assert reproduce.main(["tiny", "--data", str(data), "--out", str(tmp_path), "--checkpoint", str(weights)]) == 1
    said = said_by(tmp_path)
    assert said["verdict"] == "N differs"
    assert said["reasons"] == ["4 of the 5 annotated videos were evaluated, 1 are missing or unreadable"]
    assert said["weights"] == "given" and not (tmp_path / "tiny" / "training").exists()


def test_other_numbers_are_no_match(
    row: Row, data: Path, weights: Path, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ROWS, "tiny", replace(row, expected={PAPER: ANY_MODEL | {"t2v_r10": 40.0}}))
    assert reproduce.main(["tiny", "--data", str(data), "--out", str(tmp_path), "--checkpoint", str(weights)]) == 1
    assert said_by(tmp_path)["reasons"] == ["paper: t2v_r10 100.0 for 40.0"]


def test_where_labels_are_the_challenges_a_submission_is_written(
    row: Row, data: Path, weights: Path, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(f"{video},{caption(video)},test\n" for video in range(VIDEOS))
    (data / "small" / "test_challf0.csv").write_text("videoid,caption,split\n" + lines)
    (data / "small" / "train_val_challf0.csv").write_text("videoid,caption,split\n" + lines.replace("test", "val"))
    for video in (data / "small" / "videos").iterdir():
        video.rename(video.with_suffix(".mkv"))
    path = write_config(
        "retrieval", data / "small", "tiny.yaml", output_dir=None,
        data={"dataset": "condensed_movies", "eval_split": "val", "test_split": "test"},
    )  # fmt: skip
    monkeypatch.setitem(ROWS, "tiny", replace(row, config=str(path), dataset=CONDENSED_MOVIES))
    assert reproduce.main(["tiny", "--data", str(data), "--out", str(tmp_path), "--checkpoint", str(weights)]) == 3
    said = said_by(tmp_path)
    submission = tmp_path / "tiny" / "evaluation" / "submission.zip"
    assert said["verdict"] == "submission" and str(submission) in said["reasons"][0] and said["got"] == {}
    assert zipfile.ZipFile(submission).namelist() == ["sim_matrix_test.npy"]


def test_a_command_that_fails_ends_it_with_status_2_and_no_verdict(
    row: Row, data: Path, tmp_path: Path, in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "model.safetensors").write_text("no weights")
    assert reproduce.main(["tiny", "--data", str(data), "--out", str(tmp_path), "--checkpoint", str(damaged)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: train_retrieval.py: failed"
    assert not (tmp_path / "tiny" / "reproduce.json").exists()


START = ("--start", "{tmp}")
MISSING = {
    "all data": (
        ["--data", "{tmp}/nowhere", *START],
        "--data: {tmp}/nowhere does not exist; docs/DATASETS.md says what",
    ),
    "the dataset": (
        ["--data", "{tmp}", *START],
        "--data: {tmp} holds no folder small, which tiny is run on; docs/DATASETS",
    ),
    "a manifest": (["--data", "{data}", "data.manifest=gone.jsonl", *START], "{data}/small/gone.jsonl"),
    "every video": (["--data", "{data}", "data.videos={tmp}", *START], "none of the 5 videos is in {tmp}"),
    "weights": (["--data", "{data}", "--checkpoint", "{tmp}/gone"], "--checkpoint: {tmp}/gone does not exist"),
    "a start": (["--data", "{data}", "--start", "{tmp}/gone"], "--start: {tmp}/gone, from which tiny is trained, does"),
    "the hub": (
        ["--data", "{data}", "--start", "hf://o/n/w.pth"],
        "hf://o/n/w.pth (checkpoint): not in {cache}, and the hub cannot be reached (no route); where there is a "
        "network run `python -m scripts.fetch --to FOLDER checkpoint=hf://o/n/w.pth --config {config}`, copy",
    ),
}


@pytest.mark.parametrize(("words", "line"), MISSING.values(), ids=MISSING.keys())
def test_what_is_missing_is_named_in_one_line_before_anything_starts(
    row: Row, data: Path, tmp_path: Path, words: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(reproduce, "run_command", lambda *_: pytest.fail("a command was started"))
    for module in ("engine.hub", "engine.fetching"):
        monkeypatch.setattr(f"{module}.why_unreachable", lambda: "no route")
    places = {"tmp": tmp_path, "data": data, "cache": constants.HF_HUB_CACHE, "config": row.config}
    asked = ["tiny", "--nproc", "8", "--out", str(tmp_path / "out"), *(word.format(**places) for word in words)]
    assert reproduce.main(asked) == 2
    said = capsys.readouterr().err
    assert line.format(**places) in said and said.startswith("error: ") and said.count("\n") == 1


def test_missing_data_are_named_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from scripts.reproduce.__main__ import main; "
        f"print(main(['queryd_f32', '--data', {str(tmp_path)!r}, '--nproc', '8']), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "2 False\n" and "holds no folder queryd" in done.stderr


def test_a_command_runs_in_another_process_whose_status_is_heeded() -> None:
    code = "import configs.load, os; assert os.environ['HF_HUB_OFFLINE'] == '1'"
    run_command(("-c", code), reproduce.OFFLINE)
    with pytest.raises(ValueError, match=r"^-c .*: ended with status 3; its output is above$"):
        run_command(("-c", "raise SystemExit(3)"))


def test_a_dry_run_prints_the_commands_and_runs_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["activitynet_qa_f96", "--data", "DATA", "--out", str(tmp_path), "--dry-run", "--nproc", "8"]
    assert reproduce.main(asked) == 0
    first, *notes, training, evaluation = capsys.readouterr().out.splitlines()
    assert first == "# activitynet_qa_f96: Table 3, TESTA, 96 frames, ActivityNet-QA test"
    assert [note[:7] for note in notes] == ["# note:"]
    assert training.startswith("python -m engine.launch --nproc_per_node=8 train_vqa.py --config")
    assert "train_vqa.py --evaluate --config configs/testa/vqa/activitynet_qa_f96.yaml data.root=DATA/act" in evaluation
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (["blip_zeroshot_f32", "--data", "d"], "blip_zeroshot_f32: cannot be reproduced: BLIP's image encoder"),
        (["queryd_f33", "--data", "d"], "queryd_f33: no such row; without arguments this command lists them"),
        (["queryd_f32"], "--data: queryd_f32 needs the folder that holds the datasets; see docs/DATASETS.md"),
        (["queryd_f32", "fast", "--data", "d"], "command line: 'fast': expected KEY=VALUE"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    asked: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main(asked) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"error: {error}") and said.err.count("\n") == 1


def test_without_arguments_the_rows_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main([]) == reproduce.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert printed[: len(printed) // 2] == printed[len(printed) // 2 :] and "queryd_f16_tome" in printed
