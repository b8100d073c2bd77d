"""A run that was interrupted ends as one that was not: every weight, every moment, every logged loss."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from configs.schema import ParameterGroupConfig
from engine.checkpoint_folder import OPTIMIZER, STATE, SUMS, read_weights
from engine.run import run
from tests.engine.stub import STEPS, Interrupted, StubConfig, StubTask, stub_config
from tests.gloo import run_ranks

UNTIMED = {"samples_per_second", "seconds_per_step"}


def logged(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in UNTIMED} for line in lines]


def kept(folder: Path) -> dict[str, Any]:
    """All that a run leaves: tensors of both checkpoints, counters, random generators, logged lines."""
    last, best = folder / "checkpoint_last", folder / "checkpoint_best"
    states = {f"{name.name}/state": json.loads((name / STATE).read_text()) for name in (last, best)}
    for state in states.values():
        del state["revision"]
    tensors = {f"last/{name}": tensor for name, tensor in read_weights(last).items()}
    tensors |= {f"best/{name}": tensor for name, tensor in read_weights(best).items()}
    tensors |= load_file(last / OPTIMIZER)
    return {"tensors": tensors, "random": (last / "random.json").read_text(), "lines": logged(folder), **states}


def assert_equal_runs(first: Path, second: Path) -> None:
    expected, found = kept(first), kept(second)
    assert list(expected["tensors"]) == list(found["tensors"])
    for name, tensor in expected.pop("tensors").items():
        assert torch.equal(tensor, found["tensors"][name]), name
    del found["tensors"]
    assert expected == found


def train_until(config: StubConfig, **stop: int) -> None:
    """Train; `stop` says where it is interrupted, and then it must be."""
    if stop:
        with pytest.raises(Interrupted):
            run(config, partial(StubTask, **stop))
    else:
        run(config, StubTask)


@pytest.mark.parametrize(
    "stops",
    [
        [{"stop_at": 1}],  # before the first checkpoint
        [{"stop_at": 6}],  # in an epoch, a step after a checkpoint
        [{"stop_at": STEPS}],  # at the start of an epoch
        [{"stop_evaluation": 1}],  # between an epoch's checkpoint and its evaluation
        [{"stop_at": 3}, {"stop_at": 7}, {"stop_evaluation": 1}, {"stop_at": 11}],
    ],
)
def test_one_process(tmp_path: Path, stops: list[dict[str, int]]) -> None:
    train_until(stub_config(tmp_path / "whole", train={"save_every": 3}))
    for stop in stops:
        train_until(stub_config(tmp_path / "parts", train={"save_every": 3}), **stop)
    train_until(stub_config(tmp_path / "parts", train={"save_every": 3}))
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_groups_and_a_step_schedule_resume(tmp_path: Path) -> None:
    """With everything else that names parameters, and stopped on both sides of a milestone."""
    groups = [
        {"names": ["head"], "lr": 0.2},
        {"names": ["*.bias"], "lr_scale": 0.5, "weight_decay": 0.0},
    ]
    optim = {
        "schedule": "step", "milestones": (1, 2), "decay_rate": 0.1, "warmup_steps": 2, "layer_decay": 0.9,
        "freeze": ("blocks.1.bias",), "groups": tuple(ParameterGroupConfig(**group) for group in groups),
    }  # fmt: skip
    train_until(stub_config(tmp_path / "whole", optim=optim, train={"save_every": 3}))
    for stop in ({"stop_at": STEPS}, {"stop_at": STEPS + 2}, {}):
        train_until(stub_config(tmp_path / "parts", optim=optim, train={"save_every": 3}), **stop)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    rates = [line["lr"] for line in logged(tmp_path / "parts") if "lr" in line]
    assert rates == pytest.approx([0.0, 0.025, 0.05, 0.05, *[0.005] * 4, *[0.0005] * 4])


def test_a_run_of_a_version_without_groups_resumes(tmp_path: Path) -> None:
    train_until(stub_config(tmp_path / "whole"))
    train_until(stub_config(tmp_path / "old"), stop_at=STEPS + 1)
    for path in tmp_path.glob("old/**/config.yaml"):
        lines = path.read_text().splitlines(keepends=True)
        new_keys = [line for line in lines if line.strip() in ("groups: []", "milestones: []")]
        assert len(new_keys) == 2
        path.write_text("".join(line for line in lines if line not in new_keys))
        (path.parent / SUMS).unlink(missing_ok=True)
    train_until(stub_config(tmp_path / "old"))
    assert_equal_runs(tmp_path / "whole", tmp_path / "old")


def test_the_loss_scale_of_fp16_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.step.resolve_precision", lambda setting, device: "fp16")  # refused on a CPU; it works
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**24))  # too large
    train_until(stub_config(tmp_path / "whole", train={"save_every": 3}))
    train_until(stub_config(tmp_path / "parts", train={"save_every": 3}), stop_at=6)
    train_until(stub_config(tmp_path / "parts", train={"save_every": 3}))
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    norms = [line["grad_norm"] for line in logged(tmp_path / "whole") if line["kind"] == "train"]
    scaler = json.loads((tmp_path / "whole" / "checkpoint_last" / STATE).read_text())["scaler"]
    assert norms[0] is None and norms[-1] < 10, "steps whose gradients overflow are left out, and the scale falls"
    assert scaler["scale"] == 2.0 ** (24 - norms.count(None))


def test_two_processes(tmp_path: Path) -> None:
    whole, parts = (stub_config(tmp_path / name, train={"save_every": 3}) for name in ("whole", "parts"))
    run_ranks(2, train_until, whole)
    run_ranks(2, partial(train_until, stop_at=7), parts)
    run_ranks(2, train_until, parts)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_logging_saving_and_evaluating_leave_training_alone(tmp_path: Path) -> None:
    often = {"save_every": 1, "log_every": 1, "eval_every": 1}
    train_until(stub_config(tmp_path / "often", train=often))
    train_until(stub_config(tmp_path / "seldom", train={"log_every": 50, "eval_every": 50}))
    often_weights, weights = (read_weights(tmp_path / name / "checkpoint_last") for name in ("often", "seldom"))
    assert all(torch.equal(often_weights[name], weights[name]) for name in weights)
    assert [line["step"] for line in logged(tmp_path / "seldom")] == [
        4,
        8,
        12,
        12,
    ]  # an epoch's end, the last evaluation


def test_a_run_of_more_epochs_resumes_from_the_last(tmp_path: Path) -> None:
    train_until(stub_config(tmp_path, train={"max_epochs": 1}))
    train_until(stub_config(tmp_path, train={"max_epochs": 2}))
    assert [line["step"] for line in logged(tmp_path) if line["kind"] == "train"] == list(range(1, 2 * STEPS + 1))
    with pytest.raises(ValueError, match=r"train\.max_epochs: was 2, now 1"):
        run(stub_config(tmp_path, train={"max_epochs": 1}), StubTask)


def test_what_may_change_may_and_all_else_is_refused_and_shown(tmp_path: Path) -> None:
    train_until(stub_config(tmp_path, train={"max_epochs": 1}))
    before = kept(tmp_path)["lines"]
    with pytest.raises(
        ValueError, match=r"(?s)other settings.*optim\.lr: was 0\.05, now 0\.1\n.*seed: was 42, now 7"
    ) as error:
        run(stub_config(tmp_path, optim={"lr": 0.1}, train={"max_epochs": 1, "workers": 1}, seed=7), StubTask)
    assert "workers" not in str(error.value)
    assert kept(tmp_path)["lines"] == before
    train_until(stub_config(tmp_path, train={"max_epochs": 2, "workers": 1, "log_every": 3, "save_every": 1}))


def test_another_training_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_until(stub_config(tmp_path, train={"max_epochs": 1}))
    monkeypatch.setattr(StubTask, "steps_per_epoch", STEPS - 1)
    with pytest.raises(ValueError, match="an epoch had 4 steps and now has 3"):
        run(stub_config(tmp_path, train={"max_epochs": 2}), StubTask)


def test_other_training_data_of_equal_length_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_until(stub_config(tmp_path, train={"max_epochs": 1}))
    before = kept(tmp_path)["lines"]
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="checkpoint_last: was trained on other data"):
        patch.setattr(StubTask, "data_digest", "other rows")
        run(stub_config(tmp_path, train={"max_epochs": 2}), StubTask)
    assert kept(tmp_path)["lines"] == before
    train_until(stub_config(tmp_path, train={"max_epochs": 2}))


def test_an_older_checkpoint_without_a_digest_resumes_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_until(stub_config(tmp_path, train={"max_epochs": 1}))
    last = tmp_path / "checkpoint_last"
    state = json.loads((last / STATE).read_text())
    del state["data_digest"]
    (last / STATE).write_text(json.dumps(state))
    (last / SUMS).unlink()  # older ones have none
    train_until(stub_config(tmp_path, train={"max_epochs": 2}))
    assert "we cannot check that they are the same" in capsys.readouterr().err
    assert json.loads((last / STATE).read_text())["data_digest"] == StubTask.data_digest


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"holds metrics\.jsonl but no config\.yaml"):
        run(stub_config(tmp_path), StubTask)
    (tmp_path / "config.yaml").write_text("data: {root: x}\nobjective: {losses: [vtc]}\n")
    with pytest.raises(ValueError, match="holds another run.*objective: unknown key"):
        run(stub_config(tmp_path), StubTask)
    (tmp_path / "checkpoint_best").mkdir()
    with pytest.raises(ValueError, match="holds checkpoint_best, but no checkpoint_last"):
        run(stub_config(tmp_path), StubTask)


def test_another_number_of_processes_resumes_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_until(stub_config(tmp_path, dropout=0.0), stop_at=6)
    run_ranks(2, train_until, stub_config(tmp_path, dropout=0.0))
    assert [line["step"] for line in logged(tmp_path) if line["kind"] == "train"] == list(range(1, 3 * STEPS + 1))
    # Without dropout the number of processes changes nothing, so the run of one process is the same.
    train_until(stub_config(tmp_path / "alone", dropout=0.0))
    expected, found = (read_weights(folder / "checkpoint_last") for folder in (tmp_path / "alone", tmp_path))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)
    train_until(stub_config(tmp_path, dropout=0.0))
    assert "the run had 2 processes and now has 1" in capsys.readouterr().err


def test_other_start_weights_are_another_run(tmp_path: Path) -> None:
    train_until(stub_config(tmp_path, train={"max_epochs": 1}))
    with pytest.raises(ValueError, match="checkpoint: was null, now .*other"):
        run(stub_config(tmp_path, train={"max_epochs": 1}, checkpoint="other/checkpoint_best"), StubTask)
