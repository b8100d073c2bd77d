"""The learning rate by hand, and which parameters decay, lag behind or stand still."""

import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from configs.schema import OptimConfig
from engine.checkpoint_folder import load_optimizer, optimizer_tensors, save_weights
from engine.optim import build_optimizer, lr_at, set_lr, warmup_steps
from engine.parameters import freeze, layer_factors


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.temporal_attn = nn.Linear(4, 4)


class Encoder(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.time_embed = nn.Parameter(torch.zeros(1, 3, 4))
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.norm = nn.LayerNorm(4)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual_encoder = Encoder(depth=11)
        self.text_encoder = Encoder(depth=2)
        self.vision_proj = nn.Linear(4, 4)
        self.temp = nn.Parameter(torch.tensor(0.07))


class Task(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Pair()


def frozen_names(*prefixes: str) -> set[str]:
    task = Task()
    build_optimizer(task, OptimConfig(lr=1.0, freeze=prefixes))
    return {name for name, parameter in task.named_parameters() if not parameter.requires_grad}


def rates(config: OptimConfig, steps_per_epoch: int, max_epochs: int) -> list[float]:
    """The learning rates of a whole run."""
    return [lr_at(step, config, steps_per_epoch, max_epochs) for step in range(steps_per_epoch * max_epochs)]


def test_lr_warms_up_in_a_line_and_falls_in_a_cosine() -> None:
    config = OptimConfig(lr=1.0, min_lr=0.2, warmup_lr=0.5, warmup_steps=4)
    run = rates(config, 3, 4)
    assert run[:5] == [0.5, 0.625, 0.75, 0.875, 1.0]
    assert run[8] == pytest.approx(0.6)  # half of the cosine: the mean of lr and min_lr
    assert run[6] == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert 0.2 < run[11] < 0.25 and run[4:] == sorted(run[4:], reverse=True)
    assert run == rates(config, 12, 1), "epochs are nothing to it"


def test_a_warmup_of_the_whole_run_is_the_longest() -> None:
    assert warmup_steps(OptimConfig(lr=1.0, warmup_steps=12), total_steps=12) == 12
    assert rates(OptimConfig(lr=1.2, warmup_steps=12), 12, 1)[11] == pytest.approx(1.1)
    with pytest.raises(ValueError, match=r"optim\.warmup_steps: 13 are more than the 12 steps"):
        warmup_steps(OptimConfig(lr=1.0, warmup_steps=13), total_steps=12)


@pytest.mark.parametrize(("ratio", "steps"), [(0.0, 0), (0.1, 4), (0.5, 20), (0.99, 40)])
def test_a_warmup_may_be_a_share_of_the_run(ratio: float, steps: int) -> None:
    assert warmup_steps(OptimConfig(lr=1.0, warmup_ratio=ratio), total_steps=40) == steps
    assert rates(OptimConfig(lr=1.0, warmup_ratio=ratio), 10, 4) == rates(
        OptimConfig(lr=1.0, warmup_steps=steps), 10, 4
    )


def test_a_rate_by_epoch_is_the_references_cosine() -> None:
    """Of epoch e of E: (lr - min_lr) / 2 * (1 + cos(pi e / E)) + min_lr, from the first step of the run on."""
    run = rates(OptimConfig(lr=1e-5, min_lr=1e-6, update="epoch"), 7, 10)
    expected = [(1e-5 - 1e-6) * 0.5 * (1 + math.cos(math.pi * epoch / 10)) + 1e-6 for epoch in range(10)]
    assert run == pytest.approx([rate for rate in expected for _ in range(7)], rel=1e-12)
    assert len(set(run)) == 10 and run[0] == 1e-5


def test_a_warmup_goes_by_step_before_a_rate_by_epoch() -> None:
    run = rates(OptimConfig(lr=1.0, warmup_steps=6, update="epoch"), 4, 4)
    assert run[:6] == pytest.approx([step / 6 for step in range(6)])
    assert run[6:8] == [1.0, 1.0]  # the rest of the epoch that the warm-up ends in
    assert run[8:12] == pytest.approx([0.5 * (1 + math.cos(math.pi * 2 / 10))] * 4)
    assert run[12:] == pytest.approx([0.5 * (1 + math.cos(math.pi * 6 / 10))] * 4)


def test_an_exponential_is_the_references_pretraining() -> None:
    """Of epoch e: max(min_lr, lr * rate ** e), and in epoch 0 a line from warmup_lr to lr over the first steps."""
    settings = {"lr": 5e-6, "min_lr": 5e-7, "warmup_lr": 1e-6, "warmup_steps": 50}
    run = rates(OptimConfig(schedule="exponential", decay_rate=0.8, **settings), 60, 20)
    for epoch in range(20):
        expected = [max(5e-7, 5e-6 * 0.8**epoch)] * 60
        if epoch == 0:
            expected[:50] = [1e-6 + (5e-6 - 1e-6) * step / 50 for step in range(50)]
        assert run[60 * epoch : 60 * (epoch + 1)] == pytest.approx(expected, rel=1e-12)
    assert run[-1] == 5e-7 and run[60 * 10] > 5e-7


def test_steps_fall_at_the_end_of_their_epochs() -> None:
    """Milestones 6 and 8 of 10 epochs: six epochs of the whole rate, two of a tenth, two of a hundredth."""
    run = rates(OptimConfig(lr=1e-4, schedule="step", milestones=(6, 8), decay_rate=0.1), 5, 10)
    assert run == pytest.approx([1e-4] * 30 + [1e-5] * 10 + [1e-6] * 10, rel=1e-12)
    assert run[29] == 1e-4 and run[30] < 2e-5, "the first step of the seventh epoch is the first to fall"

    settings = {"milestones": (1, 3), "decay_rate": 0.1, "min_lr": 0.05, "warmup_lr": 0.5, "warmup_steps": 6}
    run = rates(OptimConfig(lr=1.0, schedule="step", **settings), 4, 4)
    warmup = [0.5 + 0.5 * step / 6 for step in range(6)]
    assert run == pytest.approx([*warmup, *[0.1] * 6, *[0.05] * 4], rel=1e-12)


def test_only_matrices_that_are_no_embeddings_decay() -> None:
    optimizer = build_optimizer(Task(), OptimConfig(lr=1.0, weight_decay=0.3))
    decaying = {name for group in optimizer.param_groups if group["weight_decay"] for name in group["param_names"]}
    expected = {f"model.visual_encoder.blocks.{block}.temporal_attn.weight" for block in range(11)}
    expected |= {f"model.text_encoder.blocks.{block}.temporal_attn.weight" for block in range(2)}
    assert decaying == expected | {"model.vision_proj.weight"}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.3}


def test_everything_decays_where_that_is_asked_for() -> None:
    task = Task()
    optimizer = build_optimizer(task, OptimConfig(lr=1.0, weight_decay=0.3, decay="all"))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3}
    members = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert sorted(members) == sorted(name for name, _ in task.named_parameters())


def test_rates_fall_towards_the_input_of_each_tower() -> None:
    scales = layer_factors([name for name, _ in Task().named_parameters()], layer_decay=0.5)
    assert scales["model.visual_encoder.blocks.10.norm.weight"] == 0.5
    assert scales["model.visual_encoder.blocks.0.norm.weight"] == 0.5**11
    assert scales["model.visual_encoder.time_embed"] == 0.5**12
    assert scales["model.text_encoder.blocks.0.norm.weight"] == 0.25
    assert scales["model.text_encoder.cls_token"] == 0.125
    for name in ("model.visual_encoder.norm.weight", "model.vision_proj.weight", "model.temp"):
        assert scales[name] == 1
    bert = layer_factors(
        ["text_decoder.bert.encoder.layer.3.output.dense.weight", "text_decoder.bert.embeddings.a"], 0.5
    )
    assert list(bert.values()) == [0.5, 0.5**5]


def test_set_lr_reaches_every_parameter_by_its_scale() -> None:
    optimizer = build_optimizer(Task(), OptimConfig(lr=1.0, layer_decay=0.5))
    set_lr(optimizer, 0.1)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
    assert rates["model.text_encoder.blocks.0.norm.bias"] == pytest.approx(0.025)
    assert rates["model.temp"] == pytest.approx(0.1)


def test_freezing_takes_whole_parts_of_names() -> None:
    every = {f"model.visual_encoder.blocks.1.{rest}" for rest in ("norm.weight", "norm.bias")}
    every |= {f"model.visual_encoder.blocks.1.temporal_attn.{rest}" for rest in ("weight", "bias")}
    assert frozen_names("visual_encoder.blocks.1") == every  # and not those of block 10
    assert frozen_names("model.temp") == {"model.temp"}
    assert frozen_names() == set()


def test_a_frozen_parameter_keeps_its_value() -> None:
    task = Task()
    optimizer = build_optimizer(task, OptimConfig(lr=1.0, freeze=("vision_proj",)))
    before = {name: parameter.detach().clone() for name, parameter in task.named_parameters()}
    sum((parameter - 1).square().sum() for parameter in task.parameters()).backward()
    optimizer.step()
    still = {name for name, parameter in task.named_parameters() if torch.equal(before[name], parameter)}
    assert {"model.vision_proj.weight", "model.vision_proj.bias"} <= still and "model.temp" not in still


def test_freezing_nothing_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"'visual_encodr'.*visual_encoder"):
        frozen_names("visual_encodr")
    with pytest.raises(ValueError, match="leaves nothing to train"):
        frozen_names("visual_encoder", "text_encoder", "vision_proj", "temp")


def adamw(task: nn.Module, *, fused: bool) -> torch.optim.Optimizer:
    """The optimizer of a run, or the same as torch computes it by default."""
    config = OptimConfig(lr=0.01, layer_decay=0.8, weight_decay=0.3, betas=(0.8, 0.99), eps=1e-4)
    optimizer = build_optimizer(task, config)
    set_lr(optimizer, config.lr)
    if fused:
        return optimizer
    groups = [
        {
            "params": list(zip(group["param_names"], group["params"], strict=True)),
            "weight_decay": group["weight_decay"],
            "lr": group["lr"],
        }
        for group in optimizer.param_groups
    ]
    return torch.optim.AdamW(groups, betas=config.betas, eps=config.eps)


def steps(task: nn.Module, optimizer: torch.optim.Optimizer, first: int, end: int) -> dict[str, torch.Tensor]:
    """The weights after steps with gradients of all sizes, a function of the step and the weights."""
    for step in range(first, end):
        generator = torch.Generator().manual_seed(step)
        for parameter in task.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.grad = 10.0 ** (-3 * noise.abs()) * noise + 0.1 * parameter.detach()
        optimizer.step()
    return {name: parameter.detach().clone() for name, parameter in task.named_parameters()}


def test_the_fused_optimizer_equals_the_plain_one() -> None:
    task = Task()
    before, other = deepcopy(task.state_dict()), deepcopy(task)
    fused, plain = adamw(task, fused=True), adamw(other, fused=False)
    assert fused.defaults["fused"] and not plain.defaults["fused"]
    found, expected = steps(task, fused, 0, 8), steps(other, plain, 0, 8)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-6)
        assert (weight - before[name]).abs().max() > 1e-3


@pytest.mark.parametrize("resumed_fused", [True, False])
@pytest.mark.parametrize("started_fused", [True, False])
def test_a_checkpoint_of_either_optimizer_resumes_with_either(
    tmp_path: Path, started_fused: bool, resumed_fused: bool
) -> None:
    task = Task()
    optimizer = adamw(task, fused=started_fused)
    steps(task, optimizer, 0, 3)
    save_weights(optimizer_tensors(optimizer), tmp_path / "optimizer.safetensors")
    resumed = deepcopy(task)
    other = adamw(resumed, fused=resumed_fused)
    load_optimizer(other, tmp_path / "optimizer.safetensors")
    expected, found = steps(task, optimizer, 3, 6), steps(resumed, other, 3, 6)
    for name, weight in expected.items():
        if started_fused == resumed_fused:
            assert torch.equal(found[name], weight), name
        else:
            torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-6)


def test_what_is_tied_freezes_by_either_name() -> None:
    module = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "decoder": torch.nn.Linear(2, 2)})
    module["decoder"].weight = module["encoder"].weight
    freeze(module, ["decoder"])
    assert [name for name, parameter in module.named_parameters() if parameter.requires_grad] == ["encoder.bias"]
