"""The loop against the same steps written out, and against itself on two processes."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file

from engine.checkpoint_folder import read_weights
from engine.distributed import rank, world_size
from engine.optim import lr_at
from engine.random_state import seed_everything
from engine.run import run
from tests.engine.stub import STEPS, StubConfig, StubTask, broken, stub_config
from tests.gloo import run_ranks


def logged(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def written_out(config: StubConfig) -> tuple[StubTask, list[float]]:
    """The same training without the engine: one plain AdamW, no accumulation helper, no log."""
    seed_everything(config.seed)
    task = StubTask(config, torch.device("cpu"))
    named = dict(task.named_parameters())
    groups = []
    for name, parameter in named.items():
        scale = {"blocks.0": 0.9**2, "blocks.1": 0.9}.get(name[:8], 1.0)
        groups.append({"params": [parameter], "weight_decay": 0.05 if name.endswith("weight") else 0.0, "scale": scale})
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    step, losses = 0, []
    for epoch in range(config.train.max_epochs):
        batches = task.train_epoch(epoch, 0)
        for _ in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = lr_at(step, config.optim, STEPS, config.train.max_epochs) * group["scale"]
            micro_batches = [{"rows": next(batches)["rows"]} for _ in range(config.train.accumulate)]
            task.begin_step(step, step / STEPS, micro_batches)
            parts = []
            for batch in micro_batches:
                parts.append(sum(task(batch).values()) / config.train.accumulate)
                parts[-1].backward()
            torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(sum(part.item() for part in parts))
            step += 1
    return task, losses


def test_the_loop_is_these_steps(tmp_path: Path) -> None:
    config = stub_config(tmp_path, dropout=0.0)
    run(config, StubTask)
    task, losses = written_out(config)
    assert [line["loss"] for line in logged(tmp_path)] == pytest.approx(losses, rel=1e-5)
    assert losses[-1] < losses[0]
    weights = read_weights(tmp_path / "checkpoint_last")
    for name, tensor in task.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-5, atol=1e-6)


def test_every_line_adds_up(tmp_path: Path) -> None:
    config = stub_config(tmp_path)
    run(config, StubTask)
    lines = logged(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 3 * STEPS + 1))
    for number, line in enumerate(lines):
        assert line["loss"] == pytest.approx(line["loss_rebuild"] + line["loss_queue"], rel=1e-5)
        assert line["lr"] == lr_at(number, config.optim, STEPS, 3)
        assert line["epoch"] == (number + 1) / STEPS and line["grad_norm"] > 0


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    run(stub_config(tmp_path / "one", dropout=0.0), StubTask)
    run_ranks(2, run, stub_config(tmp_path / "two", dropout=0.0), StubTask)
    one, two = (read_weights(tmp_path / name / "checkpoint_last") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-6)
    for expected, found in zip(logged(tmp_path / "one"), logged(tmp_path / "two"), strict=True):
        for name in ("loss", "loss_rebuild", "loss_queue", "grad_norm", "lr"):
            assert found[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-6)


def test_a_task_hears_of_every_step(tmp_path: Path) -> None:
    tasks: list[StubTask] = []

    def make(config: StubConfig, device: torch.device) -> StubTask:
        tasks.append(StubTask(config, device))
        return tasks[-1]

    run(stub_config(tmp_path, train={"max_epochs": 2}), make)
    assert tasks[0].steps_begun == [(step, step / STEPS) for step in range(2 * STEPS)]


def test_the_best_checkpoint_is_of_the_best_evaluation(tmp_path: Path) -> None:
    run(stub_config(tmp_path), StubTask)
    likeness = [line["likeness"] for line in logged(tmp_path, "evaluation")]
    assert likeness == [42.0, 50.0, 42.0]
    state = json.loads((tmp_path / "checkpoint_best" / "state.json").read_text())
    assert (state["step"], state["best_value"], state["best_metric"]) == (2 * STEPS, 50.0, "likeness")
    assert int(read_weights(tmp_path / "checkpoint_best")["batches_seen"]) == 2 * STEPS * 2
    assert (tmp_path / "checkpoint_best" / "vocabulary.txt").read_text() == "words\n"
    assert json.loads((tmp_path / "results.json").read_text())["metrics"]["likeness"] == 50.0


def test_evaluation_keeps_its_pace_and_ends_the_run(tmp_path: Path) -> None:
    run(stub_config(tmp_path, train={"max_epochs": 3, "eval_every": 2}), StubTask)
    assert [line["step"] for line in logged(tmp_path, "evaluation")] == [2 * STEPS, 3 * STEPS]


def test_without_a_best_metric_nothing_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StubTask, "best_metric", None)
    run(stub_config(tmp_path), StubTask)
    run(stub_config(tmp_path), StubTask)  # finished: says so, and ends well
    assert logged(tmp_path, "evaluation") == [] and not (tmp_path / "checkpoint_best").exists()


class BrokenSteps(StubTask):
    """Steps of which one rank's last micro-batch has a loss, or only a gradient, that is not finite."""

    where: ClassVar[dict[int, str]] = {}

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        losses = super().forward(batch)
        is_here = rank() == world_size() - 1 and int(self.batches_seen) % self.config.train.accumulate == 0
        if is_here and self.where.get(self.step) == "loss":
            losses["queue"] = losses["queue"] + float("inf")
        if is_here and self.where.get(self.step) == "gradient":
            zero = self.blocks[1].weight.sum() * 0
            losses["queue"] = losses["queue"] + zero.sqrt()
        return losses


class BrokenFromSixOn(BrokenSteps):
    where = dict.fromkeys(range(6, 12), "loss")


class BrokenNowAndThen(BrokenSteps):
    where = {2: "loss", 6: "gradient", 7: "loss"}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_step_that_is_not_finite_is_left_out_counted_and_named(tmp_path: Path, processes: int) -> None:
    config = stub_config(tmp_path, train={"save_every": 1, "log_every": 4, "max_skipped": 2, "max_epochs": 2})
    run_ranks(processes, run, config, BrokenNowAndThen)
    lines = [json.loads(line) for line in (tmp_path / "skipped_steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 7, 8]
    assert lines[0]["loss"] is None and lines[0]["loss_rebuild"] > 0 and lines[1]["grad_norm"] is None
    assert {name[:15] for name in lines[1]["samples"]} == {"epoch 1, step 2"} and len(lines[1]["samples"]) == 8
    assert logged(tmp_path)[-1]["skipped_steps"] == 3
    last = tmp_path / "checkpoint_last"
    state = json.loads((last / "state.json").read_text())
    assert (state["num_skipped"], state["skipped_in_a_row"]) == (3, 2)
    assert all(tensor.isfinite().all() for tensor in read_weights(last).values())
    # Neither weights nor moments, nor their count of steps, know of the steps left out.
    before, after = (
        load_file(tmp_path / name / "optimizer.safetensors") for name in ("checkpoint_step_00000007", last.name)
    )
    assert set(after) == set(before) and all(torch.equal(after[name], before[name]) for name in after)
    assert after["head.weight/step" if "head.weight/step" in after else "blocks.0.weight/step"] == 5


def test_too_many_steps_that_are_not_finite_end_the_run_saved(tmp_path: Path) -> None:
    config = stub_config(tmp_path, train={"log_every": 1, "max_skipped": 2})
    message = r"3 steps in a row up to step 9 were not finite and skipped, the last: loss inf, .*checkpoint_last"
    with pytest.raises(FloatingPointError, match=message):
        run(config, BrokenFromSixOn)
    state = json.loads((tmp_path / "checkpoint_last" / "state.json").read_text())
    assert (state["step"], state["skipped_in_a_row"]) == (9, 3)
    assert all(tensor.isfinite().all() for tensor in read_weights(tmp_path / "checkpoint_last").values())
    run(config, StubTask)  # without the fault the run resumes
    assert [line["step"] for line in logged(tmp_path)] == list(range(1, 3 * STEPS + 1))
    assert logged(tmp_path)[-1]["skipped_steps"] == 3


def test_no_step_may_be_left_out_if_none_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="1 steps in a row up to step 3 were"):
        run(stub_config(tmp_path, train={"max_skipped": 0}), BrokenNowAndThen)


def test_unreadable_files_are_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(stub_config(tmp_path, train={"max_epochs": 2}), StubTask)
    run(stub_config(tmp_path, train={"max_epochs": 3}), StubTask)
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    expected = [broken(f"broken{epoch}.mp4") for epoch in range(3)]
    assert lines == [expected[0], broken("broken_test.mp4", "is empty"), *expected[1:]]
    assert json.loads((tmp_path / "checkpoint_last" / "quarantine.json").read_text()) == expected
    assert capsys.readouterr().err.count("cannot read broken0.mp4: is no video") == 1


def test_bf16_on_a_cpu_trains_close_to_fp32(tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        run(stub_config(tmp_path / precision, dropout=0.0, train={"precision": precision}), StubTask)
    exact, rounded = ([line["loss"] for line in logged(tmp_path / name)] for name in ("fp32", "bf16"))
    assert rounded == pytest.approx(exact, rel=0.05) and rounded != exact
    assert read_weights(tmp_path / "bf16" / "checkpoint_last")["head.weight"].dtype == torch.float32
    assert json.loads((tmp_path / "bf16" / "results.json").read_text())["versions"]["precision"] == "bf16"
