"""AdamW over named parameters, what is frozen, and the learning rate of every step."""

import difflib
import math
import re
from collections.abc import Iterable

import torch
from torch import nn

from configs.schema import OptimConfig

_BLOCK = re.compile(r"(?:^|\.)(?:blocks|layer)\.(\d+)\.")


def lr_at(step: int, config: OptimConfig, total_steps: int) -> float:
    """The learning rate of step `step` (from 0): a line to `lr` over the warm-up, then a cosine to `min_lr`."""
    if step < config.warmup_steps:
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / config.warmup_steps
    progress = (step - config.warmup_steps) / (total_steps - config.warmup_steps)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def check_warmup(config: OptimConfig, total_steps: int) -> None:
    """Refuse a warm-up that the run does not reach the end of."""
    if config.warmup_steps > total_steps:
        raise ValueError(
            f"optim.warmup_steps: {config.warmup_steps} are more than the {total_steps} steps of the run; "
            "lower it or raise train.max_epochs"
        )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def build_optimizer(module: nn.Module, config: OptimConfig, device: torch.device) -> torch.optim.AdamW:
    """Freeze what `config.freeze` names, then AdamW over the rest, in groups of the same decay and rate.

    Every group has `param_names` and `lr_scale`, the factor that `layer_decay` gives it.
    """
    freeze(module, config.freeze)
    trainable = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("optim.freeze: leaves nothing to train")
    scales = lr_scales([name for name, _ in module.named_parameters()], config.layer_decay)
    members: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in trainable:
        decay = config.weight_decay if decays(name, parameter) else 0.0
        members.setdefault((decay, scales[name]), []).append((name, parameter))
    groups = [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), parameters in members.items()
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=device.type == "cuda")


def freeze(module: nn.Module, prefixes: Iterable[str]) -> None:
    """Take the parameters below `prefixes` out of training; a task's leading `model.` may be left out.

    `ValueError` for a prefix of no parameter, with the nearest names.
    """
    parameters = {_without_model(name): parameter for name, parameter in module.named_parameters()}
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
    """Whether weight decay is for this parameter: not for norms, biases, other vectors and scalars, and embeddings."""
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
