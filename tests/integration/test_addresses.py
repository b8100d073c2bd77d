"""A command resolves a checkpoint's address once, and a vocabulary's name, and reads each annotation file once."""

import json
from pathlib import Path
from typing import Any

import pytest

from datasets.annotations import manifest
from engine import hub
from engine.hub import Checkpoint
from inference.api import load_model
from scripts.app.__main__ import parse_arguments, prepare
from scripts.extract_features.__main__ import main as extract_features
from scripts.search import main as search
from tests.integration.runs import results_of, start, train, write_config
from tests.tiny_runs import write_data, write_questions

ADDRESS = "hf://testers/tiny"
ONE_EPOCH: dict[str, Any] = {"train": {"max_epochs": 1, "batch_size": 4}}


class CountingHub:
    """The hub's function for checkpoint folders, which counts the downloads asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, 0

    def snapshot(self, repository: str, *, dry_run: bool = False, **_: Any) -> Any:
        assert repository == "testers/tiny"
        if dry_run:
            return []
        self.asked += 1
        return str(self.folder)

    def taken(self) -> int:
        """How many were asked for since the last time."""
        asked, self.asked = self.asked, 0
        return asked


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a run of one epoch in `run`."""
    root = write_questions(write_data(tmp_path_factory.mktemp("data"), [1] * 4), [1] * 4)
    train(root, root / "run", **ONE_EPOCH)
    return root


@pytest.fixture
def stand_in(root: Path, monkeypatch: pytest.MonkeyPatch) -> CountingHub:
    """A hub that holds the run's best checkpoint as `testers/tiny`."""
    counting = CountingHub(root / "run" / "checkpoint_best")
    monkeypatch.setattr(hub, "why_unreachable", lambda: None)
    monkeypatch.setattr(hub, "snapshot_download", counting.snapshot)
    return counting


def test_a_run_asks_once(root: Path, stand_in: CountingHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights and tokenizer come from one folder; a run that resumes has its own."""
    sections = {**ONE_EPOCH, "output_dir": str(tmp_path / "run"), "checkpoint": ADDRESS}
    config = write_config("retrieval", root, f"{tmp_path.name}.yaml", **sections)
    assert start("train_retrieval", "--config", config) == 0
    assert stand_in.taken() == 1
    assert f"{ADDRESS} is {stand_in.folder}" in capsys.readouterr().err
    assert start("train_retrieval", "--config", config) == 0  # finished: it is evaluated again
    assert stand_in.taken() == 0
    assert results_of(tmp_path / "run")["config"]["checkpoint"] == ADDRESS


def test_a_run_looks_for_its_vocabulary_once_and_reads_each_annotation_file_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one file is the training and the evaluation set, and where the test set has a file of its own."""
    (root / "test.jsonl").write_bytes((root / "captions.jsonl").read_bytes())
    asked: list[str] = []
    files: list[str] = []
    read = manifest.read

    def snapshot(repository: str, *, dry_run: bool = False, **_: Any) -> Any:
        if dry_run:
            return []
        asked.append(repository)
        return str(root / "run" / "checkpoint_best" / "tokenizer")

    def counted(path: Path, videos: Path) -> Any:
        files.append(path.name)
        return read(path, videos)

    monkeypatch.setattr(hub, "why_unreachable", lambda: None)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr(manifest, "read", counted)

    data = {"root": str(root), "manifest": "captions.jsonl", "test_manifest": "test.jsonl"}
    sections = {**ONE_EPOCH, "output_dir": str(tmp_path / "run"), "data": data}
    config = write_config("retrieval", root, f"{tmp_path.name}.yaml", **sections)
    assert start("train_retrieval", "--config", config, "model.text.tokenizer=testers/words") == 0
    assert asked == ["testers/words"]
    assert sorted(files) == ["captions.jsonl", "test.jsonl"]
    assert results_of(tmp_path / "run")["config"]["model"]["text"]["tokenizer"] == "testers/words"


def test_an_evaluation_asks_once(
    root: Path, stand_in: CountingHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--evaluate", f"checkpoint={ADDRESS}", f"output_dir={tmp_path / 'evaluation'}")
    assert start("train_retrieval", *asked) == 0
    assert stand_in.taken() == 1
    results = results_of(tmp_path / "evaluation")
    assert results["metrics"] == results_of(root / "run")["metrics"]
    assert results["checkpoint"] == results["config"]["checkpoint"] == ADDRESS

    assert start("train_retrieval", "--print", *asked) == 0
    assert stand_in.taken() == 1
    assert "# command line" in capsys.readouterr().out


def test_a_list_beside_the_weights_is_not_asked_for_again(root: Path, stand_in: CountingHub, tmp_path: Path) -> None:
    """The answers that a question-answering run chooses from lie beside its weights."""
    stand_in.folder = train(root, tmp_path / "vqa", "vqa", **ONE_EPOCH) / "checkpoint_best"
    assert (stand_in.folder / "answers.json").is_file()
    asked = ("--evaluate", f"checkpoint={ADDRESS}", f"output_dir={tmp_path / 'evaluation'}")
    assert start("train_vqa", *asked) == 0
    assert stand_in.taken() == 1
    assert results_of(tmp_path / "evaluation")["metrics"] == results_of(tmp_path / "vqa")["metrics"]


def test_a_loaded_model_asks_once_and_a_found_checkpoint_not_again(stand_in: CountingHub) -> None:
    assert load_model(ADDRESS, device="cpu").source == ADDRESS
    assert stand_in.taken() == 1
    checkpoint = Checkpoint.find(ADDRESS)
    assert load_model(checkpoint, device="cpu").source == ADDRESS
    assert stand_in.taken() == 1


def test_extracting_searching_and_the_page_ask_once(
    root: Path, stand_in: CountingHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, index = str(root / "videos"), str(tmp_path / "index")
    with pytest.raises(SystemExit) as stop:
        extract_features([videos, "--checkpoint", ADDRESS, "--out", str(tmp_path / "features"), "--workers", "0"])
    assert (stop.value.code or 0, stand_in.taken()) == (0, 1)

    for words in (["index", videos, "--checkpoint", ADDRESS, "--workers", "0"], ["query", "red grows", "--json"]):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            search([*words, "--index", index])
        assert (stop.value.code or 0, stand_in.taken()) == (0, 1)
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 4

    _, listening = prepare(parse_arguments(["--index", index, "--port", "0"]))
    listening.close()
    assert stand_in.taken() == 1
