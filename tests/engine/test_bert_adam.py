"""BertAdam's schedules, its clipping of each gradient, and a state that resumes to the bit."""

import pytest
import torch

from configs.schema import OptimConfig
from engine.bert_adam import SCHEDULES, BertAdam
from engine.optim import build_optimizer, clip_each, lr_at, set_lr, step_unless


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


def test_in_the_engine_its_own_schedule_and_ours_give_the_same_weights() -> None:
    start = torch.linspace(-1, 1, 4)
    expected, own = new(start, warmup=0.25, max_grad_norm=None, weight_decay=0.2)
    module = torch.nn.Module()
    module.register_parameter("weight", torch.nn.Parameter(start.clone()))
    config = OptimConfig(
        lr=0.1, optimizer="bert_adam", schedule="cosine_of_run", warmup_ratio=0.25, weight_decay=0.2, decay="all",
        betas=(0.9, 0.98), eps=1e-6,
    )  # fmt: skip
    optimizer = build_optimizer(module, config)
    for step in range(20):
        module.weight.grad = torch.sin(torch.arange(4.0) + step)
        set_lr(optimizer, lr_at(step, config, steps_per_epoch=5, max_epochs=4))
        step_unless(optimizer, torch.zeros(()))
        run(expected, own, range(step, step + 1))
        torch.testing.assert_close(module.weight, own, atol=1e-7, rtol=1e-6)


def test_a_step_that_is_skipped_changes_neither_weights_nor_moments() -> None:
    optimizer, weight = new(torch.linspace(-1, 1, 4), schedule=None)
    run(optimizer, weight, range(3))
    before, state = weight.detach().clone(), {k: v.clone() for k, v in optimizer.state[weight].items()}
    weight.grad = torch.tensor([torch.nan, torch.inf, 1.0, 2.0])
    step_unless(optimizer, torch.ones(()))
    assert torch.equal(weight, before)
    assert all(torch.equal(optimizer.state[weight][name], state[name]) for name in ("mean", "square"))


def test_rates_of_the_whole_run() -> None:
    cosine = OptimConfig(lr=1.0, schedule="cosine_of_run", warmup_ratio=0.1)
    line = OptimConfig(lr=1.0, schedule="linear", warmup_ratio=0.1)
    for config, name in ((cosine, "warmup_cosine"), (line, "warmup_linear")):
        rates = [lr_at(step, config, 10, 2) for step in range(20)]
        assert rates == pytest.approx([SCHEDULES[name](step / 20, 0.1) for step in range(20)])


def test_biases_alone_can_be_kept_from_decay() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    groups = build_optimizer(module, OptimConfig(lr=1.0, decay="all_but_biases", weight_decay=0.2)).param_groups
    decayed = {name for group in groups if group["weight_decay"] for name in group["param_names"]}
    assert decayed == {"0.weight", "1.weight"}


def test_each_gradient_can_be_clipped_after_all_of_them() -> None:
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([0.1, 0.0])]
    clip_each(gradients, 1.0)
    torch.testing.assert_close(gradients, [torch.tensor([0.6, 0.8]), torch.tensor([0.1, 0.0])])
