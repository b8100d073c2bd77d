"""Fetching for machines without a network: from a server that stands in for the hub, with the hub's own library."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from configs.load import load
from configs.schema import RetrievalConfig
from engine import hub
from engine.fetching import Need, needs_of
from models.parts.tokenizer import make_tokenizer
from scripts import fetch
from scripts.parts.rows.table import ROWS
from tests.integration.runs import ROOT, results_of, start, train, write_config
from tests.stand_in_hub import StandInHub, serving
from tests.tiny_runs import write_data

WEIGHTS = "hf://testers/tiny/weights.pth"
# Only https is used. The stand-in has no certificate, so its address is taken for one of https.
AS_HTTPS = (
    "import sys, types; import engine.hub as hub; from huggingface_hub import constants; "
    "Https = type('Https', (str,), {'startswith': lambda *_: True}); "
    "hub.constants = types.SimpleNamespace(ENDPOINT=Https(constants.ENDPOINT), HF_HUB_CACHE=constants.HF_HUB_CACHE, "
    "is_offline_mode=constants.is_offline_mode); "
)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInHub]:
    """A hub with weights, beside what nobody wants, and a vocabulary."""
    folder = tmp_path_factory.mktemp("vocabulary")
    make_tokenizer(["a red square rolls"], 64).save(folder)
    vocabulary = {path.name: path.read_bytes() for path in folder.iterdir()}
    torch.save({"model": {"weight": torch.ones(2)}}, folder / "weights.pth")
    weights = {"weights.pth": (folder / "weights.pth").read_bytes(), "optimizer.pth": b"large", "code.py": b"exit()"}
    with serving({"testers/tiny": weights, "testers/words": {**vocabulary, "model.bin": b"large"}}) as server:
        yield server


@pytest.fixture
def config(tmp_path: Path) -> Path:
    model = {"text": {"tokenizer": "testers/words", "vocab_size": 64}}
    return write_config("retrieval", write_data(tmp_path, [1] * 2), model=model, checkpoint=WEIGHTS)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False
    )


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("snapshots/*/*")}


def test_what_was_fetched_is_found_elsewhere_without_a_network(
    stand_in: StandInHub, config: Path, tmp_path: Path
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    words = ["--config", str(config), "--to", str(there)]
    run = f"{AS_HTTPS} from scripts.fetch import main; sys.exit(main({words}))"
    done = python(run, HF_ENDPOINT=stand_in.address, HF_HUB_DISABLE_XET="1")
    assert done.returncode == 0, done.stderr
    assert f"export HF_HOME={there} HF_HUB_OFFLINE=1" in done.stdout and WEIGHTS in done.stdout
    assert {"weights.pth", "tokenizer.json"} <= files_of(there)
    assert not {"optimizer.pth", "code.py", "model.bin"} & files_of(there)

    there.rename(here)
    look = (
        "import sys; from engine.hub import local_path, tokenizer_folder; "
        f"print(local_path('{WEIGHTS}'), tokenizer_folder('testers/words'), 'torch' in sys.modules)"
    )
    asked = len(stand_in.asked)
    for offline in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "https://127.0.0.1:9"}):
        found = python(look, HF_HOME=str(here), **offline)
        weights, folder, imports_torch = found.stdout.split()
        assert torch.load(weights, weights_only=True)["model"]["weight"].tolist() == [1, 1]
        assert Path(weights).is_relative_to(here) and (Path(folder) / "tokenizer.json").is_file()
        assert imports_torch == "False"
    assert len(stand_in.asked) == asked


def test_a_run_without_a_network_says_what_it_lacks_before_torch_is_imported(config: Path, tmp_path: Path) -> None:
    words = ["train_retrieval.py", "--config", str(config)]
    code = (
        f"import runpy, sys; sys.argv = {words}\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: print(stop.code, 'torch' in sys.modules)"
    )
    done = python(code, HF_HOME=str(tmp_path / "empty"), HF_ENDPOINT="https://127.0.0.1:9")
    assert done.stdout.split() == ["2", "False"]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {WEIGHTS} (checkpoint) and testers/words (model.text.tokenizer): not in {tmp_path}")
    assert f"`python -m scripts.fetch --to FOLDER --config {config}`" in line and "refused" in line
    assert "docs/OFFLINE.md" in line and not (config.parent / "run").exists()


def test_what_the_hub_does_not_have_is_named(stand_in: StandInHub, config: Path, tmp_path: Path) -> None:
    words = ["checkpoint=hf://testers/nothing/w.pth", "--config", str(config), "--to", str(tmp_path / "there")]
    run = f"{AS_HTTPS} from scripts.fetch import main; sys.exit(main({words}))"
    done = python(run, HF_ENDPOINT=stand_in.address)
    assert done.returncode == 2
    assert "checkpoint: hf://testers/nothing/w.pth: there is no such repository" in done.stderr
    assert "testers/words" in done.stdout  # the rest is fetched


def test_without_a_network_fetching_ends_in_one_line(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("engine.hub", "scripts.fetch"):
        monkeypatch.setattr(f"{module}.why_unreachable", lambda: "no route")
    assert fetch.main(["--row", "queryd_f32", "queryd_f96", "--config", str(config), "--to", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err == "error: the hub cannot be reached (no route); run this where it can\n"


def test_a_row_needs_its_released_weights_or_what_it_is_trained_from(tmp_path: Path) -> None:
    arguments = fetch.parse(["--row", "queryd_f32", "queryd_f96_merge_untrained", "--to", str(tmp_path)])
    needed = {name: [need.source for need in needs_of(config)] for name, config in fetch.configurations(arguments)}
    assert needed["queryd_f32"] == [ROWS["queryd_f32"].released, "bert-base-uncased"]
    assert needed["queryd_f96_merge_untrained"] == [
        "hf://ShuhuaiRen/TESTA_model_base_pretrain/testa_model_base_pretrain.pth",
        "bert-base-uncased",
    ]


def test_a_vocabulary_made_from_the_captions_is_not_needed(tmp_path: Path) -> None:
    path = write_config("retrieval", tmp_path)
    assert needs_of(load(RetrievalConfig, path, [])) == []
    assert needs_of(load(RetrievalConfig, path, ["checkpoint=a/b"])) == [Need("checkpoint", "a/b", "weights")]


def test_a_vocabulary_of_clip_is_no_repository_of_the_hub() -> None:
    path = ROOT / "configs" / "tvts" / "retrieval" / "msrvtt_b16.yaml"
    config = load(RetrievalConfig, path, ["data.root=data", "checkpoint=null"])
    assert config.model.text.tokenizer == "open_clip_torch" and needs_of(config) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "x"], "give --config, --row or --checkpoint"),
        (["--to", "x", "--config", "a=b"], "a=b is no file; write settings before --config"),
    ],
)
def test_command_lines_that_are_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        fetch.parse(words)
    assert said in capsys.readouterr().err


def test_a_row_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch.main(["--row", "queryd", "--to", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: --row: queryd: no such row")


def test_a_run_evaluates_what_was_fetched_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = write_data(tmp_path, [1] * 4), tmp_path / "there" / "hub"
    trained = train(root, root / "run", train={"max_epochs": 1})
    best = trained / "checkpoint_best"
    files = {path.relative_to(best).as_posix(): path.read_bytes() for path in best.rglob("*") if path.is_file()}
    words = ["--checkpoint", "hf://testers/run", "--to", str(tmp_path / "there")]
    with serving({"testers/run": files}) as server:
        run = f"{AS_HTTPS} from scripts.fetch import main; sys.exit(main({words}))"
        done = python(run, HF_ENDPOINT=server.address, HF_HUB_DISABLE_XET="1")
    assert done.returncode == 0, done.stderr

    # As HF_HOME and HF_HUB_OFFLINE set them, which are read when the library is imported.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.why_unreachable.cache_clear()
    evaluated = tmp_path / "evaluated"
    assert start("train_retrieval", "--evaluate", "checkpoint=hf://testers/run", f"output_dir={evaluated}") == 0
    hub.why_unreachable.cache_clear()
    assert results_of(evaluated)["metrics"] == results_of(trained)["metrics"]
