"""BertAdam's schedules, its clipping of each gradient, and a state that resumes to the bit."""

import pytest
import torch

from engine.bert_adam import SCHEDULES, BertAdam


def run(optimizer: BertAdam, weight: torch.nn.Parameter, steps: range) -> None:
    for step in steps:
        weight.grad = torch.sin(torch.arange(4.0) + step)
        optimizer.step()


def new(start: torch.Tensor, **options: object) -> tuple[BertAdam, torch.nn.Parameter]:
    weight = torch.nn.Parameter(start.clone())
    return BertAdam([weight], lr=0.1, total_steps=20, **options), weight  # type: ignore[arg-type]


def test_schedules_rise_in_a_line_and_part_at_the_end_of_the_warm_up() -> None:
    for name, after in (("warmup_cosine", 0.9755), ("warmup_linear", 1.0), ("warmup_constant", 1.0)):
        factor = SCHEDULES[name]
        assert [factor(x, 0.1) for x in (0, 0.05)] == pytest.approx([0, 0.5])
        assert factor(0.1, 0.1) == pytest.approx(after, abs=1e-4)
    assert [SCHEDULES[name](1, 0.1) for name in SCHEDULES] == pytest.approx([0, 0, 1])


def test_a_run_that_is_resumed_equals_one_that_is_not() -> None:
    start = torch.linspace(-1, 1, 4)
    whole, weight = new(start)
    run(whole, weight, range(8))
    first, half = new(start)
    run(first, half, range(4))
    second, rest = new(half.detach())
    second.load_state_dict(first.state_dict())
    run(second, rest, range(4, 8))
    assert torch.equal(weight, rest)


def test_each_gradient_is_clipped_to_its_own_norm() -> None:
    start = torch.zeros(4)
    (clipped, first), (plain, second) = new(start, max_grad_norm=1.0), new(start, max_grad_norm=None)
    for optimizer, weight in ((clipped, first), (plain, second)):
        for _ in range(3):
            large = torch.tensor([3.0, 4.0, 0.0, 0.0])
            weight.grad = large if optimizer is clipped else large / 5
            optimizer.step()
    torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)
    assert bool(first[0] != 0)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="schedule: 'cosine' is none of"):
        new(torch.zeros(1), schedule="cosine")
    with pytest.raises(ValueError, match="warmup: 0"):
        new(torch.zeros(1), warmup=0.0)
