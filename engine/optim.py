"""AdamW over named parameters, what is frozen, and the learning rate of every step."""

import difflib
import math
import re
from collections.abc import Iterable

import torch
from torch import nn

from configs.schema import OptimConfig

_BLOCK = re.compile(r"(?:^|\.)(?:blocks|layer)\.(\d+)\.")


def lr_at(step: int, config: OptimConfig, steps_per_epoch: int, max_epochs: int) -> float:
    """The learning rate of step `step` (from 0): a line to `lr` over the warm-up, then what `schedule` says.

    A cosine falls from the end of the warm-up to `min_lr` at the end of the run. With `update: epoch` a step has the
    rate of its epoch's first step, or of the end of the warm-up where that is later. The exponential is `lr` times
    `decay_rate` for each epoch since the beginning of the run, and not below `min_lr`.
    """
    total_steps = steps_per_epoch * max_epochs
    warmup = warmup_steps(config, total_steps)
    if step < warmup:
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / warmup
    epoch = step // steps_per_epoch
    if config.schedule == "exponential":
        assert config.decay_rate is not None
        return max(config.min_lr, config.lr * config.decay_rate**epoch)
    if config.update == "epoch":
        step = max(epoch * steps_per_epoch, warmup)
    progress = (step - warmup) / (total_steps - warmup)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_steps(config: OptimConfig, total_steps: int) -> int:
    """How many steps the warm-up takes; `ValueError` if the run does not reach its end."""
    steps = config.warmup_steps or round(config.warmup_ratio * total_steps)
    if steps > total_steps:
        raise ValueError(
            f"optim.warmup_steps: {steps} are more than the {total_steps} steps of the run; "
            "lower it or raise train.max_epochs"
        )
    return steps


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Freeze what `config.freeze` names, then AdamW over the rest, in groups of the same decay and rate.

    `config.decay: all` lets every parameter decay. Every group has `param_names` and `lr_scale`, the factor that
    `layer_decay` gives it. Fused, it passes over the weights once, on a CPU too, and needs no memory for a second copy.
    """
    freeze(module, config.freeze)
    trainable = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("optim.freeze: leaves nothing to train")
    scales = lr_scales([name for name, _ in module.named_parameters()], config.layer_decay)
    members: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in trainable:
        decay = config.weight_decay if config.decay == "all" or decays(name, parameter) else 0.0
        members.setdefault((decay, scales[name]), []).append((name, parameter))
    groups = [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), parameters in members.items()
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def step_unless(optimizer: torch.optim.AdamW, skip: torch.Tensor) -> None:
    """Take a step unless `skip`, a float tensor () on the parameters' device, is 1; the host never asks which it was.

    Skipped, neither weights nor moments nor step counts change. A fused optimizer takes `found_inf` for that from a
    GradScaler, which sets it as we do.
    """
    assert all(group["fused"] for group in optimizer.param_groups)
    optimizer.found_inf, optimizer.grad_scale = skip, None  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf, optimizer.grad_scale  # type: ignore[attr-defined]


def freeze(module: nn.Module, prefixes: Iterable[str]) -> None:
    """Take the parameters below `prefixes` out of training; a task's leading `model.` may be left out.

    `ValueError` for a prefix of no parameter, with the nearest names.
    """
    # Tied ones go by each of their names.
    named = module.named_parameters(remove_duplicate=False)
    parameters = {_without_model(name): parameter for name, parameter in named}
    for prefix in prefixes:
        wanted = _without_model(prefix)
        below = [name for name in parameters if f"{name}.".startswith(f"{wanted}.")]
        if not below:
            known = {".".join(name.split(".")[:end]) for name in parameters for end in range(1, name.count(".") + 2)}
            nearest = difflib.get_close_matches(wanted, sorted(known), cutoff=0.4)
            nearest = nearest or sorted({name.split(".")[0] for name in parameters})
            raise ValueError(f"optim.freeze: {prefix!r} begins no parameter's name; near are {', '.join(nearest)}")
        for name in below:
            parameters[name].requires_grad_(False)


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Whether a parameter is one that `decay: matrices` is for: no norm, bias, other vector or scalar, no embedding."""
    return parameter.ndim > 1 and "embed" not in name and "cls_token" not in name


def lr_scales(names: list[str], layer_decay: float) -> dict[str, float]:
    """The factor on each parameter's rate: `layer_decay` once more for every block between it and the tower's output.

    The last of a tower's blocks has `layer_decay`, the first one that to the power of the depth, embeddings one power
    more; heads and norms behind the blocks have 1. A tower is what the first part of the name (without `model.`) says.
    """
    blocks = {name: int(match[1]) for name in names if (match := _BLOCK.search(name))}
    depths: dict[str, int] = {}
    for name, block in blocks.items():
        depths[_tower(name)] = max(depths.get(_tower(name), 0), block + 1)
    scales = {}
    for name in names:
        depth = depths.get(_tower(name), 0)
        if name in blocks:
            scales[name] = layer_decay ** (depth - blocks[name])
        elif depth and ("embed" in name or "cls_token" in name):
            scales[name] = layer_decay ** (depth + 1)
        else:
            scales[name] = 1.0
    return scales


def _without_model(name: str) -> str:
    return name.removeprefix("model.")


def _tower(name: str) -> str:
    return _without_model(name).split(".")[0]
