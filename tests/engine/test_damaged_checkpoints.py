"""A damaged checkpoint is named with what is wrong, and never gone on from, evaluated or started with."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.checkpoint_folder import SUMS, find_damage, load_weights, read_weights, replacing_folder, save_weights
from engine.checkpoint_rotation import RESUMED_FROM
from engine.resume import FREE_SETTINGS, Progress, find_last, read_quarantine, restore
from engine.run import run
from tests.engine.saved_run import snapshot_of, step_to_go_on_from, trained, write_steps
from tests.engine.stub import Interrupted, StubTask, stub_config


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def without_random_states(path: Path) -> None:
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "random.json" not in line))


DAMAGES: list[tuple[str, Callable[[Path], None], str]] = [
    ("model.safetensors", flip_a_bit, "model.safetensors is not what SHA256SUMS says"),
    ("optimizer.safetensors", cut, "optimizer.safetensors is not what SHA256SUMS says"),
    ("state.json", cut, "state.json is not what SHA256SUMS says"),
    ("random.json", Path.unlink, "random.json is missing"),
    ("tokenizer/vocab.txt", Path.unlink, "tokenizer/vocab.txt is missing"),
    ("tokenizer/vocab.txt", flip_a_bit, "tokenizer/vocab.txt is not what SHA256SUMS says"),
    ("SHA256SUMS", without_random_states, "random.json is not what SHA256SUMS says"),
    ("tokenizer", shutil.rmtree, "tokenizer/vocab.txt is missing"),
]


@pytest.mark.parametrize(("name", "damage", "words"), DAMAGES)
def test_the_one_before_a_damaged_one_is_taken(
    tmp_path: Path, name: str, damage: Callable[[Path], None], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_steps(tmp_path, 3, 2, 4, 6)
    last, before = tmp_path / "checkpoint_last", tmp_path / "checkpoint_step_00000004"
    damage(last / name)
    with caplog.at_level("WARNING", logger="engine"):
        assert step_to_go_on_from(tmp_path) == 4
    assert [record.getMessage() for record in caplog.records] == [
        f"{last}: {words}; resuming from {before}, step 4; it is kept as *.damaged"
    ]
    flip_a_bit(before / "config.yaml")
    assert step_to_go_on_from(tmp_path) == 2
    (tmp_path / "checkpoint_step_00000002" / "state.json").unlink()
    with pytest.raises(ValueError) as caught:
        step_to_go_on_from(tmp_path)
    assert f"{tmp_path}: all of its checkpoints are damaged: {last}: {words}; {before}: config.yaml is" in str(
        caught.value
    )
    assert "Restore one from a copy, or choose another output_dir" in str(caught.value)


def test_a_run_whose_newest_checkpoint_is_damaged_ends_as_one_left_alone(tmp_path: Path) -> None:
    settings = {"save_every": 3}
    run(stub_config(tmp_path / "whole", train=settings), StubTask)
    with pytest.raises(Interrupted):
        run(stub_config(tmp_path / "parts", train=settings), partial(StubTask, stop_at=7))
    flip_a_bit(tmp_path / "parts" / "checkpoint_last" / "optimizer.safetensors")
    run(stub_config(tmp_path / "parts", train=settings), StubTask)
    whole, parts = (read_weights(tmp_path / name / "checkpoint_last") for name in ("whole", "parts"))
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())
    losses = [
        [(line["step"], line.get("loss")) for line in map(json.loads, (folder / "metrics.jsonl").open())]
        for folder in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert losses[0] == losses[1]


def test_a_checkpoint_of_an_older_version_has_no_sums_and_counts_less(tmp_path: Path) -> None:
    write_steps(tmp_path, 1, 2)
    last = tmp_path / "checkpoint_last"
    for name in (SUMS, "quarantine.json"):
        (last / name).unlink()
    assert find_last(stub_config(tmp_path), tmp_path) == last and read_quarantine(last) == []
    assert find_damage(last, RESUMED_FROM) is None
    (last / "random.json").unlink()
    with pytest.raises(ValueError, match=r"all of its checkpoints are damaged: .*checkpoint_last: random\.json is mi"):
        find_last(stub_config(tmp_path), tmp_path)


@pytest.mark.parametrize("counted", [{}, {"skipped_in_a_row": 2, "num_skipped": 5}])
def test_steps_left_out_are_counted_on(tmp_path: Path, counted: dict[str, int]) -> None:
    snapshot = snapshot_of(tmp_path, 4)
    more = {"epoch": 1, "step_in_epoch": 1, "steps_per_epoch": 3, "scaler": {}, **counted}
    snapshot.documents["state.json"].update(more)
    with replacing_folder(tmp_path / "checkpoint_last") as folder:
        snapshot.write(folder)
    module, optimizer = trained()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    progress = restore(tmp_path / "checkpoint_last", stub_config(tmp_path), module, optimizer, scaler, 3)
    assert progress == Progress(4, 1, 1, *(counted.values() or (0, 0)))
    assert read_quarantine(tmp_path / "checkpoint_last") == snapshot.documents["quarantine.json"]


def test_weights_that_are_damaged_are_not_loaded(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "best") as folder:
        save_weights(nn.Linear(3, 2).state_dict(), folder / "model.safetensors")
        (folder / "notes.txt").write_text("x")
    (tmp_path / "best" / "notes.txt").unlink()  # not what is read
    load_weights(nn.Linear(3, 2), tmp_path / "best")
    flip_a_bit(tmp_path / "best" / "model.safetensors")
    with pytest.raises(ValueError, match=r"best: model\.safetensors is not what SHA256SUMS says: copy ") as error:
        load_weights(nn.Linear(3, 2), tmp_path / "best")
    assert "\n" not in str(error.value)


def test_a_list_of_sums_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    (tmp_path / "inside").mkdir()
    for name in ("../outside", "/dev/zero", ""):
        (tmp_path / "inside" / SUMS).write_text(f"{'0' * 64}  {name}\n")
        assert find_damage(tmp_path / "inside") == f"{name or 'a file'} is missing"


def test_settings_that_change_no_result_may_change(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(stub_config(tmp_path, train={"save_every": 1, "keep_checkpoints": 3}), partial(StubTask, stop_at=5))
    free = {"keep_checkpoints": 1, "sample_timeout": 5.0, "stall_timeout": 60.0, "max_skipped": 3, "save_every": 2}
    assert {f"train.{name}" for name in free} < FREE_SETTINGS
    assert find_last(stub_config(tmp_path, train=free), tmp_path) == tmp_path / "checkpoint_last"
    with pytest.raises(ValueError, match="other settings"):
        find_last(stub_config(tmp_path, train={"deterministic": True}), tmp_path)
