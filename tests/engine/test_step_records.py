"""Steps come out as they went in, once, averaged over ranks."""

import torch

from engine.distributed import rank
from engine.step_records import StepRecord, StepRecords
from tests.gloo import run_ranks


def two_steps() -> list[StepRecord]:
    records = StepRecords()
    assert records.collect(0) == [] and len(records) == 0
    for number in (1, 2):
        values = {"loss": torch.tensor(number + 2.0 * rank()), "grad_norm": torch.tensor(5.0, dtype=torch.bfloat16)}
        records.add(values, torch.tensor(float(number == 2)), [f"{rank()}.mp4"])
    assert len(records) == 2
    collected = records.collect(7)
    assert records.collect(7) == []
    return collected


def test_one_process() -> None:
    values = [{"loss": number, "grad_norm": 5.0} for number in (1.0, 2.0)]
    assert two_steps() == [StepRecord(6, values[0], False, ["0.mp4"]), StepRecord(7, values[1], True, ["0.mp4"])]


def test_a_step_may_lack_losses_that_others_have() -> None:
    records = StepRecords()
    steps = [{"loss": 3.0, "loss_a": 1.0, "loss_b": 2.0}, {"loss": 4.0, "loss_a": 4.0}, {"loss": 5.0, "loss_b": 5.0}]
    for values in steps:
        records.add({name: torch.tensor(value) for name, value in values.items()}, torch.tensor(0.0), [])
    assert [record.values for record in records.collect(3)] == steps


def test_two_processes() -> None:
    first, second = run_ranks(2, two_steps)
    assert [record.values["loss"] for record in first] == [2.0, 3.0]
    assert [record.samples for record in second] == [["1.mp4"], ["1.mp4"]]
    assert [(record.step, record.values, record.skipped) for record in first] == [
        (record.step, record.values, record.skipped) for record in second
    ]
