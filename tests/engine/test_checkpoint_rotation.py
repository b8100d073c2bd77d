"""What a run keeps is whole at every moment, is what the run was when it was taken, and says when it cannot be kept."""

import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from engine import checkpoint_folder
from engine.checkpoint_folder import load_optimizer, read_json, read_weights
from engine.checkpoint_rotation import CheckpointError, CheckpointWriter, Snapshot, take_snapshot
from tests.engine.saved_run import snapshot_of, step_to_go_on_from, trained, write_steps, write_words
from tests.engine.stub import stub_config

PROGRAM = Path(__file__).with_name("saved_run.py")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_snapshot_is_the_run_as_it_was_to_the_bit(tmp_path: Path) -> None:
    module, optimizer = trained()
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    moments = {name: tensor.clone() for name, tensor in checkpoint_folder.optimizer_tensors(optimizer).items()}
    snapshot = take_snapshot(module, optimizer, {"state.json": {"step": 1}}, stub_config(tmp_path), write_words)
    assert snapshot.weights["1.weight"] is snapshot.weights["0.weight"]
    own = 9 + 3 + 3 + 6, (9 + 3 + 3) * 2 + 3
    assert snapshot.num_bytes - 4 * sum(own) == 8 * 2**20
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        module.turned.zero_()
    snapshot.write(tmp_path)
    found = read_weights(tmp_path)
    assert list(found) != [] and found.keys() == weights.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    found = load_file(tmp_path / "optimizer.safetensors")
    assert found.keys() == moments.keys() and all(torch.equal(found[name], moments[name]) for name in moments)
    assert set(load_file(tmp_path / "model.safetensors")) == {"0.weight", "0.bias", "1.bias", "turned"}


def test_the_last_and_those_before_it_are_kept(tmp_path: Path) -> None:
    write_steps(tmp_path, 3, 2, 4, 6, 8, 100_000_000)
    assert names(tmp_path) == {"checkpoint_last", "checkpoint_step_00000006", "checkpoint_step_00000008"}
    for name, step in (("last", 100_000_000), ("step_00000008", 8), ("step_00000006", 6)):
        folder = tmp_path / f"checkpoint_{name}"
        assert read_json(folder / "state.json")["step"] == step
        assert read_weights(folder)["0.bias"].eq(step).all()
        assert read_json(folder / "quarantine.json")[0]["video"] == "a.mp4"
        listed = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
        assert listed.returncode == 0 and "tokenizer/vocab.txt: OK" in listed.stdout
        optimizer = trained()[1]
        load_optimizer(optimizer, folder / "optimizer.safetensors")
    write_steps(tmp_path, 1, 100_000_001)  # another run keeps fewer
    assert names(tmp_path) == {"checkpoint_last"} and step_to_go_on_from(tmp_path) == 100_000_001


def test_a_step_that_is_saved_twice_counts_once(tmp_path: Path) -> None:
    write_steps(tmp_path, 2, 2, 4, 4)
    assert names(tmp_path) == {"checkpoint_last", "checkpoint_step_00000002"} and step_to_go_on_from(tmp_path) == 4


def test_a_damaged_one_is_not_counted_among_those_kept(tmp_path: Path) -> None:
    write_steps(tmp_path, 2, 2, 4)
    (tmp_path / "checkpoint_last" / "state.json").write_text("{")
    assert step_to_go_on_from(tmp_path) == 2
    write_steps(tmp_path, 2, 3)
    assert names(tmp_path) == {"checkpoint_last", "checkpoint_last.damaged", "checkpoint_step_00000002"}
    assert step_to_go_on_from(tmp_path) == 3
    assert (tmp_path / "checkpoint_last.damaged" / "state.json").read_text() == "{"


def test_the_best_is_replaced(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, 2)
    for step in (2, 4):
        writer.write_best(replace(snapshot_of(tmp_path, step), optimizer=None))
    writer.close()
    assert names(tmp_path) == {"checkpoint_best"}
    assert read_weights(tmp_path / "checkpoint_best")["0.bias"].eq(4).all()
    assert "optimizer.safetensors" not in names(tmp_path / "checkpoint_best")


@pytest.mark.parametrize("keep", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_a_kill_at_any_call_leaves_a_whole_checkpoint_that_is_found(tmp_path: Path, keep: int) -> None:
    done = subprocess.run([sys.executable, PROGRAM, "kills", tmp_path, str(keep)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [int(step) for step in done.stdout.split()]
    assert len(found) > 15 and found == sorted(found) and set(found) == {20, 30}


class Held:
    """Extras whose writing waits until the test allows it."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, folder: Path) -> None:
        self.begun.set()
        assert self.go_on.wait(10)


def test_checkpoints_are_written_while_training_continues(tmp_path: Path) -> None:
    held, writer = Held(), CheckpointWriter(tmp_path, 2)
    writer.write_last(replace(snapshot_of(tmp_path, 1), write_extras=held), 1)
    assert held.begun.wait(10)
    writer.check()
    assert names(tmp_path) == {"checkpoint_last.tmp"}
    held.go_on.set()
    writer.write_last(snapshot_of(tmp_path, 2), 2)
    assert "checkpoint_last" in names(tmp_path)  # it waited for the one before
    writer.close()
    assert names(tmp_path) == {"checkpoint_last", "checkpoint_step_00000001"}


def fail(folder: Path) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_failure_of_the_thread_is_raised_where_training_is(tmp_path: Path) -> None:
    write_steps(tmp_path, 2, 1)
    writer, broken = CheckpointWriter(tmp_path, 2), replace(snapshot_of(tmp_path, 2), write_extras=fail)
    words = r"checkpoint_last: cannot be written at step 2: Permission denied .*checkpoint_last remains"
    writer.write_last(broken, 2)
    with pytest.raises(CheckpointError, match=words):
        while True:
            writer.check()
    writer.check()  # it is raised once
    writer.write_last(broken, 2)
    with pytest.raises(CheckpointError, match=words):
        writer.write_last(snapshot_of(tmp_path, 3), 3)
    writer.write_last(broken, 2)
    with pytest.raises(CheckpointError, match=words):
        writer.close()
    assert names(tmp_path) == {"checkpoint_last"} and step_to_go_on_from(tmp_path) == 1


def test_our_own_mistakes_keep_their_kind(tmp_path: Path) -> None:
    def stumble(folder: Path) -> None:
        raise AssertionError("ours")

    writer = CheckpointWriter(tmp_path, 2)
    writer.write_last(replace(snapshot_of(tmp_path, 2), write_extras=stumble), 2)
    with pytest.raises(AssertionError, match="ours"):
        writer.close()
    assert names(tmp_path) == set()


def test_no_room_is_noticed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_steps(tmp_path, 2, 1)
    snapshot = snapshot_of(tmp_path, 2)
    free = shutil.disk_usage(tmp_path)._replace(free=snapshot.num_bytes - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    monkeypatch.setattr(Snapshot, "write", None)
    writer = CheckpointWriter(tmp_path, 2)
    writer.write_last(snapshot, 2)
    with pytest.raises(CheckpointError) as caught:
        writer.close()
    assert str(caught.value) == (
        f"{tmp_path}/checkpoint_last: cannot be written at step 2: there is no room for it (8 MiB needed, 8 MiB free); "
        f"{tmp_path}/checkpoint_last remains; make room there and run the same command again, "
        "or set train.keep_checkpoints=1"
    )
    assert step_to_go_on_from(tmp_path) == 1


@pytest.mark.parametrize("largest", [20_000, 3_000])
def test_a_disk_that_fills_up_leaves_the_checkpoint_before(tmp_path: Path, largest: int) -> None:
    """The weights take 17 kB and the optimizer twice as much: either meets the end of what may be written."""
    limited = [sys.executable, PROGRAM, "limit", tmp_path, str(largest)]
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("\n") == 1 and "cannot be written at step 2: " in done.stdout
    assert "File too large" in done.stdout and "checkpoint_last remains; make room there" in done.stdout
    assert names(tmp_path) == {"checkpoint_last"} and step_to_go_on_from(tmp_path) == 1


def test_what_killed_runs_left_is_cleared_away(tmp_path: Path) -> None:
    for name in ("checkpoint_best.tmp", "checkpoint_step_00000001.removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("half")
    write_steps(tmp_path, 2, 2)
    assert names(tmp_path) == {"checkpoint_last"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_snapshot_of_a_gpu_is_what_was_there(tmp_path: Path) -> None:
    module = nn.Linear(4000, 4000).cuda()
    optimizer = torch.optim.AdamW([{"params": list(module.named_parameters())}], lr=0.1)
    for _ in range(3):
        module(torch.ones(64, 4000, device="cuda")).square().sum().backward()
        optimizer.step()
        expected = module.weight.detach().clone()
        snapshot = take_snapshot(module, optimizer, {}, stub_config(tmp_path), write_words)
        with torch.no_grad():
            module.weight.add_(1.0)
        assert torch.equal(snapshot.weights["weight"], expected.cpu()) and snapshot.weights["weight"].is_pinned()
        assert snapshot.optimizer is not None and snapshot.optimizer["weight/exp_avg"].device.type == "cpu"
