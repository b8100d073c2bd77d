"""Runs whose videos lie elsewhere: they learn and find what runs of the same files on this machine do, to the bit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.remote import fetch
from scripts.check_dataset.__main__ import main as check_dataset
from scripts.extract_features.__main__ import main as extract_features
from scripts.make_shards import main as make_shards
from scripts.search import main as search
from tests.integration.runs import losses_of, results_of, start, train, weights_of, write_config
from tests.tiny_runs import write_data
from tests.unreliable_server import UnreliableServer, serving

VIDEOS = 6
SECTIONS: dict[str, Any] = {"train": {"max_epochs": 2, "batch_size": 4}}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data on this machine, and a run of them in `run`."""
    root = write_data(tmp_path_factory.mktemp("data"), [1] * VIDEOS)
    train(root, root / "run", **SECTIONS)
    return root


@pytest.fixture
def server(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnreliableServer]:
    """The same data on a server, as `data/`."""
    settings = {"CACHE_DIR": tmp_path / "cache", "CACHE_GIB": 1, "TRIES": 3, "STALL_SECONDS": 3}
    for name, value in settings.items():  # also those that a test's configuration sets, which are then restored
        monkeypatch.setenv(f"VIDEO_{name}", str(value))
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.01)
    paths = [local / "captions.jsonl", *sorted((local / "videos").iterdir())]
    with serving({f"data/{path.relative_to(local)}": path.read_bytes() for path in paths}) as serving_them:
        yield serving_them


def write_addresses(server: UnreliableServer, folder: Path, suffix: str = "") -> Path:
    """A data folder whose manifest names the server's videos."""
    rows = [json.loads(line) for line in server.files["data/captions.jsonl"].splitlines()]
    lines = [{**row, "video": f"{server.address}/data/videos/{row['video']}{suffix}"} for row in rows]
    folder.mkdir(exist_ok=True)
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def assert_same_run(folder: Path, other: Path) -> None:
    assert losses_of(folder) == losses_of(other) and len(losses_of(folder)) > 1
    found, expected = weights_of(folder / "checkpoint_last"), weights_of(other / "checkpoint_last")
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    assert results_of(folder)["metrics"] == results_of(other)["metrics"]


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.soak), 2])
def test_training_on_addresses_is_training_on_files(
    local: Path, server: UnreliableServer, tmp_path: Path, workers: int
) -> None:
    """Though each address fails in another way at first."""
    for video, fault in enumerate(("503", "cut", "short", "long", "429", "stall")):
        server.faults[f"data/videos/{video}.mp4"] = [fault]
    root = write_addresses(server, tmp_path / "root")
    sections = {**SECTIONS, "train": {**SECTIONS["train"], "workers": workers}}
    assert_same_run(train(root, tmp_path / "run", **sections), local / "run")


@pytest.mark.soak
def test_a_data_root_that_is_an_address(local: Path, server: UnreliableServer, tmp_path: Path) -> None:
    data = {"root": f"{server.address}/data/", "remote": {"cache_dir": str(tmp_path / "own"), "cache_gib": 0.01}}
    assert_same_run(train(tmp_path, tmp_path / "run", **SECTIONS, data=data), local / "run")
    assert (tmp_path / "own" / "files").is_dir()
    assert results_of(tmp_path / "run")["dataset"] == "data"


@pytest.mark.soak
def test_pre_training_on_shards_elsewhere(local: Path, server: UnreliableServer, tmp_path: Path) -> None:
    """By ranges, from a shard that a folder of the server holds; the run on shards of this machine is the same."""
    words = (local / "captions.jsonl", "--media", local / "videos", "--out", tmp_path / "shards", "--workers", 0)
    assert run_command(make_shards, *words) == 0
    for path in (tmp_path / "shards").iterdir():
        if path.is_file():
            server.files[f"shards/{path.name}"] = path.read_bytes()
    sources = {"sources": [{"file": "index.json"}]}
    here = train(tmp_path / "shards", tmp_path / "here", "pretrain", **SECTIONS, data=sources)
    there_data = {**sources, "root": f"{server.address}/shards"}
    there = train(tmp_path, tmp_path / "there", "pretrain", **SECTIONS, data=there_data)
    assert losses_of(there) == losses_of(here) and len(losses_of(here)) > 1
    found, expected = weights_of(there / "checkpoint_last"), weights_of(here / "checkpoint_last")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert server.asked[next(name for name in server.asked if name.endswith(".tar"))] > VIDEOS


def test_a_video_that_cannot_be_had_is_replaced_named_and_ends_nothing(
    server: UnreliableServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "?X-Amz-Signature=5ecre7"
    server.faults["data/videos/1.mp4"] = ["404*"]
    server.faults["data/videos/2.mp4"] = ["500*"]
    folder = train(write_addresses(server, tmp_path / "root", secret), tmp_path / "run", **SECTIONS)
    failed = {failure["video"]: failure["reason"] for failure in results_of(folder)["failed"]}
    address = f"{server.address}/data/videos"
    assert failed.keys() == {f"{address}/1.mp4", f"{address}/2.mp4"}
    assert "404 Not Found (try 1 of 3, another is of no use); check the address" in failed[f"{address}/1.mp4"]
    assert "500 Internal Server Error (try 3 of 3); try again later" in failed[f"{address}/2.mp4"]
    assert results_of(folder)["num_videos"] == VIDEOS - 2

    said = capfd.readouterr().err
    assert f"{address}/1.mp4" in said and "5ecre7" not in said
    assert not any(b"5ecre7" in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_no_run_begins_when_nothing_can_be_had(
    server: UnreliableServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for video in range(VIDEOS):
        server.faults[f"data/videos/{video}.mp4"] = ["403*"]
    root = write_addresses(server, tmp_path / "root")
    assert start("train_retrieval", "--config", write_config("retrieval", root, **SECTIONS)) == 2
    said = capfd.readouterr().err
    assert f"none of {VIDEOS} videos looked for can be had, the first is {server.address}/data/videos/0.mp4: " in said
    assert "403 Forbidden" in said and "check the credentials" in said


def run_command(command: Any, *words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        command([str(word) for word in words])
    return int(stop.value.code or 0)


def test_features_search_and_the_look_at_data_take_addresses(
    local: Path, server: UnreliableServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = ("--checkpoint", local / "run" / "checkpoint_best", "--workers", 0)
    assert run_command(extract_features, local / "videos", *checkpoint, "--out", tmp_path / "files") == 0
    expected = np.load(tmp_path / "files" / "features" / "embeddings.npy")
    folder = f"{server.address}/data/videos"

    # Signed addresses: the index knows them without their signatures, and again there is nothing left to encode.
    manifest = write_addresses(server, tmp_path / "root", "?Signature=5ecre7") / "captions.jsonl"
    capsys.readouterr()
    for encoded in (VIDEOS, 0):
        assert run_command(extract_features, manifest, *checkpoint, "--out", tmp_path / "features", "--json") == 0
        counts = json.loads(capsys.readouterr().out)
        assert (counts["encoded"], counts["failed"]) == (encoded, 0)
    features = tmp_path / "features" / "features"
    assert np.array_equal(np.load(features / "embeddings.npy"), expected)
    rows = [json.loads(line) for line in (features / "index.jsonl").read_text().splitlines()]
    assert [row["video"] for row in rows] == [f"{folder}/{video}.mp4" for video in range(VIDEOS)]

    # A folder: in the next index one file has changed, and one is gone and named.
    index = ("--index", tmp_path / "index")
    assert run_command(search, "index", folder, *checkpoint, *index) == 0
    server.files["data/videos/0.mp4"] = server.files["data/videos/5.mp4"]
    server.faults["data/videos/1.mp4"] = ["404*"]
    capsys.readouterr()
    assert run_command(search, "index", folder, *checkpoint, *index, "--json") == 1
    counts = json.loads(capsys.readouterr().out)
    assert (counts["encoded"], counts["failed"]) == (1, 1)
    assert run_command(search, "query", "red grows", *index, "--json", "--top", 2) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert len(hits) == 2 and all(hit["video"].startswith(folder) and hit["frames"] for hit in hits)

    config = write_config("retrieval", tmp_path, "check.yaml", data={"root": f"{server.address}/data"})
    words = ("--config", config, "--jobs", 0, "--decode", "all", "--out", tmp_path / "checked")
    assert run_command(check_dataset, *words) == 0
    part = json.loads((tmp_path / "checked" / "dataset.json").read_text())["parts"]["train"]["videos"]
    assert (part["annotated"], part["missing"], part["tried"], part["undecodable"]) == (VIDEOS, 1, VIDEOS - 1, 0)
