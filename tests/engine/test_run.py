"""Starting, evaluating, finishing and failing."""

import importlib.machinery
import importlib.util
import json
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.load import to_dict
from engine import command_line
from engine.checkpoint_folder import load_weights
from engine.command_line import exit_status
from engine.distributed import rank
from engine.random_state import (
    preserved_random_state,
    random_state,
    random_state_from_json,
    random_state_to_json,
    restore_random_state,
    seed_everything,
)
from engine.run import run
from tests.engine.stub import Interrupted, StubConfig, StubTask, stub_config
from tests.gloo import run_ranks
from tests.ports import free_port


class LoadingTask(StubTask):
    """A task that starts from `config.checkpoint`, as real ones do."""

    def __init__(self, config: StubConfig, device: torch.device) -> None:
        super().__init__(config, device)
        assert config.checkpoint is not None
        load_weights(self, Path(config.checkpoint))

    def train_epoch(self, epoch: int, first_step: int) -> None:  # type: ignore[override]
        raise AssertionError("an evaluation trains nothing")

    def evaluate(self, final: bool) -> dict[str, Any]:
        assert self.folded
        return super().evaluate(final)


def times(folder: Path) -> dict[Path, int]:
    """When each file of a run was written, other than those of its results."""
    of_results = {"results.json", "results_history.jsonl", "missing_videos.jsonl", "predictions.txt"}
    written = (path for path in folder.rglob("*") if "heartbeats_of_evaluation" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in written if path.name not in of_results}


def test_a_finished_run_evaluates_its_best_weights_and_logs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(stub_config(tmp_path), StubTask)
    trained = json.loads((tmp_path / "results.json").read_text())
    (tmp_path / "results.json").unlink()
    lines = (tmp_path / "metrics.jsonl").read_text()
    capsys.readouterr()
    run(stub_config(tmp_path), StubTask)
    assert "this run is finished" in capsys.readouterr().err
    assert json.loads((tmp_path / "results.json").read_text()) == trained
    assert (tmp_path / "metrics.jsonl").read_text() == lines


def test_evaluating_gives_the_numbers_of_training_and_leaves_the_run_alone(tmp_path: Path) -> None:
    run(stub_config(tmp_path), StubTask)
    trained = json.loads((tmp_path / "results.json").read_text())
    before = times(tmp_path)
    best = str(tmp_path / "checkpoint_best")
    config = stub_config(tmp_path, checkpoint=best, seed=9)
    run(config, LoadingTask, evaluate_only=True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["metrics"] == trained["metrics"] and results["checkpoint"] == trained["checkpoint"] == best
    assert results["config"] == to_dict(config)
    history = [json.loads(line) for line in (tmp_path / "results_history.jsonl").read_text().splitlines()]
    assert history[-2:] == [trained, results]
    assert [results[name] for name in ("task", "dataset", "split", "num_videos", "num_texts", "num_missing")] == [
        "stub", "stub", "eval", 3, 4, 1,
    ]  # fmt: skip
    assert results["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert (results["versions"]["device"], results["versions"]["precision"]) == ("cpu", "fp32")
    assert times(tmp_path) == before


def test_evaluating_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint: nothing to evaluate"):
        run(stub_config(tmp_path), StubTask, evaluate_only=True)


def test_bad_settings_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"optim\.warmup_steps: 13 are more than the 12 steps"):
        run(stub_config(tmp_path / "out", optim={"warmup_steps": 13}), StubTask)
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        run(stub_config(tmp_path / "out", train={"precision": "fp16"}), StubTask)
    assert not (tmp_path / "out").exists()


def test_wandb_that_is_not_installed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ValueError, match="wandb_project: wandb is not installed"):
        run(stub_config(tmp_path, wandb_project="x"), StubTask)


def test_another_datasets_package_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = importlib.machinery.ModuleSpec("datasets", None, origin="/site-packages/datasets/__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: other)
    with pytest.raises(ValueError, match="another `datasets` package is imported first.*repository root"):
        run(stub_config(tmp_path), StubTask)


def test_an_error_leaves_no_process_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in group.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Interrupted):
        run(stub_config(tmp_path), partial(StubTask, stop_at=0))
    assert not torch.distributed.is_initialized()


def test_processes_that_do_not_find_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when one is killed before there is a group, and no launcher ends the others."""

    def nobody_there(timeout: timedelta) -> None:
        torch.distributed.TCPStore("127.0.0.1", 1, 2, False, timedelta(seconds=0.1))

    monkeypatch.setattr("engine.run.start_distributed", nobody_there)
    with pytest.raises(SystemExit) as stop, exit_status():
        run(stub_config(tmp_path), StubTask)
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 1 and lines[-1].startswith("error: the processes did not find each other (")
    assert not any("Traceback" in line for line in lines)


def threads_after(config: StubConfig) -> list[str]:
    """The names of the threads that torch's process group has left when a run is over."""
    run(config, StubTask)
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]


def test_no_thread_of_the_process_group_outlives_a_run(tmp_path: Path) -> None:
    """One that lets go of a tensor while the interpreter ends would abort the process."""
    assert run_ranks(2, threads_after, stub_config(tmp_path)) == [[], []]


def fail_on_rank_one(config: StubConfig) -> None:
    run(config, partial(StubTask, stop_at=2 if rank() == 1 else None))


def test_an_error_of_one_rank_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="(?s)rank . failed"):
        run_ranks(2, fail_on_rank_one, stub_config(tmp_path))


def test_deterministic_training_repeats_itself(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(stub_config(tmp_path / name, train={"deterministic": True}), StubTask)
        assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    one, two = ((tmp_path / name / "checkpoint_last" / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def drawn() -> list[float]:
    import random

    import numpy as np

    return [random.random(), float(np.random.normal()), float(torch.rand(()))]


def test_random_generators_come_back_from_json() -> None:
    seed_everything(1, 2)
    drawn()
    state = json.loads(json.dumps(random_state_to_json(random_state())))
    expected = drawn()
    with preserved_random_state():
        restore_random_state(random_state_from_json(state))
        assert drawn() == expected
    following = drawn()
    restore_random_state(random_state_from_json(state))
    assert [drawn(), drawn()] == [expected, following]


def test_other_seeds_are_other_streams() -> None:
    streams = []
    for numbers in ((1,), (1, 0), (1, 1), (0, 1), (1, 0)):
        seed_everything(*numbers)
        streams.append(tuple(drawn()))
    assert streams[1] == streams[4] and len(set(streams)) == 4


@pytest.mark.parametrize(("local_rank", "waited"), [("0", []), ("3", [command_line.LISTEN_SECONDS])])
def test_the_first_rank_of_a_machine_names_a_mistake_that_all_make(
    local_rank: str, waited: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others leave it the time to; the launcher ends them before theirs is over."""
    slept: list[float] = []
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.setattr(command_line.time, "sleep", slept.append)
    with pytest.raises(SystemExit, match="2"), command_line.exit_status(starting=True):
        raise ValueError("optim.lr: is wrong")
    assert slept == waited and capsys.readouterr().err == "error: optim.lr: is wrong\n"
