"""Bad days of the entry scripts: each ends in one line, and the same command goes on as if it had not been."""

import json
import os
import random
import shutil
import signal
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.processes import Ranks, lines_of
from tests.integration.runs import SHORT, metrics_of, start, train, weights_of, write_config
from tests.tiny_runs import write_data


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small videos with a caption each."""
    return write_data(tmp_path_factory.mktemp("data"), [1] * 8)


def assert_ended_alike(whole: Path, parts: Path) -> None:
    expected, found = (weights_of(folder / "checkpoint_last") for folder in (whole, parts))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert metrics_of(whole) == metrics_of(parts)


@pytest.mark.soak
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ten_kills_of_pretraining(root: Path, tmp_path: Path, world_size: int) -> None:
    """With a twin, a queue, workers and every objective; the processes are killed at any moment."""
    chance = random.Random(world_size)
    runs = {"optim": {"lr": 1e-3}, "train": {"max_epochs": 15, "workers": 1, "save_every": 1}}
    whole = write_config("pretrain", root, "whole.yaml", output_dir=str(tmp_path / "whole"), **runs)
    parts = write_config("pretrain", root, "parts.yaml", output_dir=str(tmp_path / "parts"), **runs)
    with Ranks(world_size, "pretrain.py", "--config", str(whole), log=tmp_path / "whole.log") as ranks:
        assert ranks.wait(300) == [0] * world_size, ranks.output()
    metrics = tmp_path / "parts" / "metrics.jsonl"
    for kill in range(10):
        goal = lines_of(metrics) + chance.randint(0, 2)
        log = tmp_path / f"{kill}.log"
        with Ranks(world_size, "pretrain.py", "--config", str(parts), log=log) as ranks:
            assert ranks.until(lambda goal=goal: lines_of(metrics) >= goal, 300), ranks.output()
            victims = [chance.randrange(world_size)] if kill % 2 else list(range(world_size))
            if len(victims) < world_size:  # before there is a group the launcher is who notices
                assert ranks.until(lambda ranks=ranks: ranks.all_are_training(tmp_path / "parts"), 300), ranks.output()
            ranks.send(signal.SIGKILL, victims)
            statuses = ranks.wait(100)
        assert statuses == [-signal.SIGKILL if rank in victims else 1 for rank in range(world_size)], ranks.output()
        assert "Traceback" not in ranks.output()
    with Ranks(world_size, "pretrain.py", "--config", str(parts), log=tmp_path / "last.log") as ranks:
        assert ranks.wait(300) == [0] * world_size, ranks.output()
    assert_ended_alike(tmp_path / "whole", tmp_path / "parts")


def test_a_full_disk(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(root, tmp_path / "whole", **SHORT)
    config = write_config("retrieval", root, "full.yaml", output_dir=str(tmp_path / "run"), **SHORT)
    room = namedtuple("Room", "total used free")
    writes = iter([10**12] * 2)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: room(10**12, 0, next(writes, 10**6)))
        assert start("train_retrieval", "--config", config) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "no room for it" in said[0] and "checkpoint_last remains; make room there" in said[0]
    assert start("train_retrieval", "--config", config) == 0
    assert_ended_alike(whole, tmp_path / "run")


def test_a_damaged_checkpoint(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, parts = (train(root, tmp_path / name, **SHORT) for name in ("whole", "parts"))
    weights = parts / "checkpoint_last" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    capsys.readouterr()
    train(root, parts, **SHORT)
    said = capsys.readouterr().err
    assert f"{parts / 'checkpoint_last'}: model.safetensors " in said
    assert f"resuming from {parts / 'checkpoint_step_00000006'}, step 6" in said
    assert_ended_alike(whole, parts)


@pytest.mark.usefixtures("without_java")
@pytest.mark.parametrize("task", ["retrieval", "caption"])
def test_the_start_weights_may_be_gone(root: Path, tmp_path: Path, task: str) -> None:
    first = train(root, tmp_path / "first", task, **SHORT)
    start_from = {"checkpoint": str(first / "checkpoint_last"), **SHORT}
    whole, parts = (train(root, tmp_path / name, task, **start_from) for name in ("whole", "parts"))
    shutil.rmtree(first)
    shutil.rmtree(parts / "checkpoint_last")  # so that it goes on from the one before
    train(root, parts, task, **start_from)
    assert_ended_alike(whole, parts)


def test_a_worker_that_is_killed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(root, tmp_path / "whole", **SHORT)
    from datasets.video_text import VideoTextDataset

    read = VideoTextDataset.__getitem__
    mark, main = tmp_path / "killed", os.getpid()

    def dying(dataset: VideoTextDataset, item: Any) -> Any:
        if os.getpid() != main and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return read(dataset, item)

    monkeypatch.setattr(VideoTextDataset, "__getitem__", dying)
    parts = train(root, tmp_path / "parts", **{**SHORT, "train": {**SHORT["train"], "workers": 2}})
    assert mark.exists()
    assert_ended_alike(whole, parts)


def test_a_run_of_half_broken_videos(root: Path, tmp_path: Path) -> None:
    """What cannot be read is in the quarantine of the folder and of its checkpoint, with the reason, once."""
    data = shutil.copytree(root, tmp_path / "data")
    for video in (2, 5):
        (data / "videos" / f"{video}.mp4").write_bytes(b"no video")
    run = train(data, tmp_path / "run", **SHORT)
    lines = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(Path(line["video"]).name for line in lines) == ["2.mp4", "5.mp4"]
    assert all(line["reason"] and line["excluded"] is False for line in lines)
    kept = json.loads((run / "checkpoint_last" / "quarantine.json").read_text())
    assert sorted(entry["video"] for entry in kept) == sorted(line["video"] for line in lines)
