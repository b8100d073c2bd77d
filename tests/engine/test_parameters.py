"""Which parameters the names of groups and the depth of blocks reach, by hand on modules of known names."""

import logging
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from configs.schema import OptimConfig, ParameterGroupConfig
from engine.checkpoint_folder import load_optimizer, optimizer_tensors, save_weights
from engine.optim import build_optimizer, set_lr
from engine.parameters import BLOCK_NAMES, freeze, layer_factors, matching_names

NAMES = [
    "model.video_model.conv1.weight",
    "model.video_model.transformer.resblocks.1.timeattn.qkv.weight",
    "model.video_model.transformer.resblocks.10.timeattn.qkv.weight",
    "model.video_model.transformer.resblocks.1.ln_3.bias",
    "model.text_model.ln_final.bias",
    "model.pred_model.head.weight",
]


class Block(nn.Module):
    """Some parameters of a block that a video model adds to CLIP's, and of CLIP's own."""

    def __init__(self) -> None:
        super().__init__()
        self.timeattn = nn.Linear(3, 3)
        self.attn = nn.Linear(3, 3)
        self.ln_3 = nn.LayerNorm(3)


class Tower(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.ones(3, 3))
        self.resblocks = nn.ModuleList(Block() for _ in range(depth))
        self.proj = nn.Linear(3, 2, bias=False)


class Task(nn.Module):
    """A video and a text tower and a head, as `video_model`, `text_model` and `pred_model` of a task's `model`."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"video_model": Tower(2), "text_model": Tower(1), "pred_model": nn.Linear(2, 5)})


def rates(task: nn.Module, config: OptimConfig, lr: float) -> dict[str, float]:
    """The rate of each parameter at a step at which that of `optim.lr` is `lr`."""
    optimizer = build_optimizer(task, config)
    set_lr(optimizer, lr)
    return {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}


def weight_decays(task: nn.Module, config: OptimConfig) -> dict[str, float]:
    groups = build_optimizer(task, config).param_groups
    return {name: group["weight_decay"] for group in groups for name in group["param_names"]}


@pytest.mark.parametrize(
    ("pattern", "positions"),
    [
        ("video_model", [0, 1, 2, 3]),
        ("model.video_model", [0, 1, 2, 3]),
        ("video", []),
        ("video_model.transformer.resblocks.1", [1, 3]),  # and not block 10
        ("*.timeattn", [1, 2]),
        ("timeattn", []),
        ("*.resblocks.1.*.bias", [3]),
        ("*.bias", [3, 4]),
        ("*ln_", []),
        ("*ln_*", [3, 4]),
        ("*model*", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_pattern_names_whole_parts_and_a_star_any_text(pattern: str, positions: list[int]) -> None:
    assert matching_names(pattern, NAMES) == [NAMES[position] for position in positions]


def test_each_group_has_its_rate_and_the_first_match_wins() -> None:
    groups = (
        ParameterGroupConfig(names=("*.timeattn", "*.ln_3", "pred_model"), lr=1e-4),
        ParameterGroupConfig(names=("model.video_model",), lr_scale=0.5),
    )
    found = rates(Task(), OptimConfig(lr=1e-6, groups=groups), lr=5e-7)  # half way down a schedule
    for name, rate in found.items():
        is_new = "timeattn" in name or "ln_3" in name or "pred_model" in name
        own = 1e-4 if is_new else 5e-7 if "video_model" in name else 1e-6
        assert rate == pytest.approx(own / 2, rel=1e-12), name
    assert len(set(found.values())) == 3 and len(found) == len(list(Task().parameters()))


def test_groups_and_layer_decay_multiply() -> None:
    plain = OptimConfig(lr=1.0, layer_decay=0.5)
    groups = (ParameterGroupConfig(names=("video_model",), lr=0.25),)
    before = rates(Task(), plain, lr=1.0)
    grouped = rates(Task(), OptimConfig(lr=1.0, layer_decay=0.5, groups=groups), lr=1.0)
    assert grouped["model.video_model.resblocks.0.attn.weight"] == 0.25 * 0.5**2
    assert grouped == {name: rate * (0.25 if "video_model" in name else 1) for name, rate in before.items()}


def test_a_groups_decay_is_its_own_and_the_rule_of_what_decays_is_not() -> None:
    groups = (ParameterGroupConfig(names=("text_model",), weight_decay=0.7),)
    matrices = weight_decays(Task(), OptimConfig(lr=1.0, weight_decay=0.3, groups=groups))
    assert matrices["model.text_model.resblocks.0.attn.weight"] == 0.7
    assert matrices["model.video_model.resblocks.0.attn.weight"] == 0.3
    assert matrices["model.text_model.resblocks.0.attn.bias"] == matrices["model.text_model.class_embedding"] == 0

    everything = weight_decays(Task(), OptimConfig(lr=1.0, weight_decay=0.3, decay="all", groups=groups))
    assert everything == {name: 0.7 if "text_model" in name else 0.3 for name in everything}


def test_the_four_groups_of_two_rates_that_tvts_trains_with() -> None:
    """New and published parameters, each with and without decay: by names, as the reference sorts them."""
    new, still = ("*.timeattn", "*.ln_3", "pred_model"), ("*bias", "*ln_*")
    groups = (
        ParameterGroupConfig(names=("*.timeattn.bias", "*.ln_3", "pred_model.bias"), lr=1e-4, weight_decay=0.0),
        ParameterGroupConfig(names=new, lr=1e-4),
        ParameterGroupConfig(names=still, weight_decay=0.0),
    )
    config = OptimConfig(lr=1e-7, weight_decay=0.05, decay="all", groups=groups)
    optimizer = build_optimizer(Task(), config)
    set_lr(optimizer, 1e-7)
    for group in optimizer.param_groups:
        for name in group["param_names"]:
            is_new = any(part in name for part in ("timeattn", "ln_3", "pred_model"))
            assert group["lr"] == pytest.approx(1e-4 if is_new else 1e-7, rel=1e-12), name
            assert group["weight_decay"] == (0.0 if "bias" in name or "ln_" in name else 0.05), name
    assert len(optimizer.param_groups) == 4


def test_the_log_counts_the_parameters_of_each_group(caplog: pytest.LogCaptureFixture) -> None:
    groups = (
        ParameterGroupConfig(names=("video_model", "pred_model"), lr_scale=0.1),
        ParameterGroupConfig(names=("*.attn",), weight_decay=0.5),
    )
    with caplog.at_level(logging.INFO, "engine"):
        build_optimizer(Task(), OptimConfig(lr=1e-3, freeze=("*.proj",), groups=groups))
    # A block has 2 * (9 + 3) + 6 values in 6 tensors; a tower 9 more for its class, and its projection is frozen.
    assert [record.getMessage() for record in caplog.records] == [
        "optim.groups[0] (video_model, pred_model): 84 parameters in 15 tensors, lr 0.0001, weight decay 0.05",
        "optim.groups[1] (*.attn): 12 parameters in 2 tensors, lr 0.001, weight decay 0.5",
        "all other parameters: 27 parameters in 5 tensors, lr 0.001, weight decay 0.05",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("video_modl",), r"optim.groups\[1\].names: 'video_modl' begins no parameter's name; near are video_model"),
        (("*.timeatn",), r"optim.groups\[1\].names: '\*.timeatn' matches no parameter's name; near are timeattn"),
        (("pred_model.bias",), r"optim.groups\[1\].names: all parameters of pred_model.bias are frozen or belong to"),
        (("*.proj",), r"optim.groups\[1\].names: all parameters of \*.proj are frozen or belong to an earlier group"),
    ],
)
def test_a_group_without_parameters_is_refused(names: tuple[str, ...], message: str) -> None:
    groups = (ParameterGroupConfig(names=("pred_model",), lr=1.0), ParameterGroupConfig(names=names, lr=1.0))
    with pytest.raises(ValueError, match=f"^{message}"):
        build_optimizer(Task(), OptimConfig(lr=1.0, freeze=("*.proj",), groups=groups))


def test_a_tied_parameter_belongs_to_a_group_by_either_name() -> None:
    module = nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)})
    module["decoder"].weight = module["encoder"].weight
    found = rates(module, OptimConfig(lr=1.0, groups=(ParameterGroupConfig(names=("decoder",), lr=0.5),)), lr=1.0)
    assert found == {"encoder.weight": 0.5, "encoder.bias": 1.0, "decoder.bias": 0.5}


def test_an_optimizers_file_written_without_groups_resumes_with_them(tmp_path: Path) -> None:
    """The file goes by the names of parameters, so that moments find them in whatever group they are."""
    task = Task()
    optimizer = build_optimizer(task, OptimConfig(lr=1e-3))
    sum(parameter.pow(3).sum() for parameter in task.parameters()).backward()
    optimizer.step()
    save_weights(optimizer_tensors(optimizer), tmp_path / "optimizer.safetensors")

    copy = deepcopy(task)
    groups = (ParameterGroupConfig(names=("pred_model",), lr_scale=0.5),)
    grouped = build_optimizer(copy, OptimConfig(lr=1e-3, groups=groups))
    load_optimizer(grouped, tmp_path / "optimizer.safetensors")
    expected, found = optimizer_tensors(optimizer), optimizer_tensors(grouped)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("block_name", BLOCK_NAMES)
def test_rates_fall_by_block_whatever_a_tower_calls_its_blocks(block_name: str) -> None:
    names = [f"model.tower.encoder.{block_name}.{block}.mlp.weight" for block in range(12)]
    found = layer_factors([*names, "model.tower.class_embedding", "model.tower.ln_post.weight"], 0.5)
    assert list(found.values()) == [0.5 ** (12 - block) for block in range(12)] + [0.5**13, 1.0]


def test_what_lies_before_clips_blocks_counts_as_embeddings() -> None:
    before = [f"visual.{name}" for name in ("conv1.weight", "ln_pre.bias", "positional_embedding", "class_embedding")]
    found = layer_factors([*before, "visual.transformer.resblocks.2.attn.weight", "visual.proj"], 0.5)
    assert list(found.values()) == [0.5**4] * 4 + [0.5, 1.0]


def test_a_layer_decay_that_finds_no_block_is_refused() -> None:
    names = ["model.tower.stages.0.weight", "model.tower.myblocks.1.weight", "model.head.bias"]
    message = r"^optim.layer_decay: 0.5 has no effect: .*blocks.0, layer.0, resblocks.0.* of head, tower"
    with pytest.raises(ValueError, match=message):
        layer_factors(names, 0.5)
    assert layer_factors(names, 1.0) == dict.fromkeys(names, 1.0)


def test_freezing_by_a_pattern() -> None:
    task = Task()
    freeze(task, ["*.timeattn", "text_model"])
    frozen = {name for name, parameter in task.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in task.named_parameters() if "timeattn" in name or "text_model" in name}
    with pytest.raises(ValueError, match=r"'\*.timeatn' matches no parameter's name; near are timeattn"):
        freeze(task, ["*.timeatn"])
