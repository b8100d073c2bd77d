"""The optimizer over named parameters, and the learning rate of every step."""

import logging
import math
from collections.abc import Callable

import torch
from torch import nn

from configs.schema import OptimConfig, ParameterGroupConfig
from engine.bert_adam import BertAdam
from engine.parameters import decays, freeze, group_of_each, layer_factors

logger = logging.getLogger("engine")
DECAYS: dict[str, Callable[[str, torch.Tensor], bool]] = {
    "matrices": decays,
    "all_but_biases": lambda name, parameter: "bias" not in name,
    "all": lambda name, parameter: True,
}
"""Whether a parameter decays, by `optim.decay`."""


def lr_at(step: int, config: OptimConfig, steps_per_epoch: int, max_epochs: int) -> float:
    """The learning rate of step `step` (from 0): a line to `lr` over the warm-up, then what `schedule` says.

    A cosine falls from the end of the warm-up to `min_lr` at the end of the run. With `update: epoch` a step has the
    rate of its epoch's first step, or of the end of the warm-up where that is later. `cosine_of_run` is the cosine of
    the whole run's progress, to which the rate drops after the warm-up; `linear` is a line down to 0. The others are
    `lr` times `decay_rate`, for each epoch since the beginning of the run (exponential) or each of the `milestones`
    that have ended (step). None falls below `min_lr`.
    """
    total_steps = steps_per_epoch * max_epochs
    warmup = warmup_steps(config, total_steps)
    if step < warmup:
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / warmup

    if config.schedule == "cosine_of_run":
        return max(config.min_lr, config.lr * 0.5 * (1 + math.cos(math.pi * step / total_steps)))
    if config.schedule == "linear":
        return max(config.min_lr, config.lr * (total_steps - step) / max(total_steps - warmup, 1))

    epoch = step // steps_per_epoch
    if config.schedule != "cosine":
        assert config.decay_rate is not None
        # Milestones count from 1, epochs here from 0: the epoch after milestone 6 is number 6.
        milestones = sum(epoch >= milestone for milestone in config.milestones)
        num_decays = epoch if config.schedule == "exponential" else milestones
        return max(config.min_lr, config.lr * config.decay_rate**num_decays)

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


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Freeze what `config.freeze` names, then build the optimizer over the rest, in groups of one decay and rate.

    Every group has `param_names` and `lr_scale`, the factor on the rate that `config.groups` and `layer_decay` give it
    together. Fused, AdamW passes over the weights once, on a CPU too, and needs no memory for a second copy.
    """
    freeze(module, config.freeze)
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not trainable:
        raise ValueError("optim.freeze: leaves nothing to train")

    chosen_group = group_of_each(module, config.groups)
    factors = layer_factors([name for name, _ in module.named_parameters()], config.layer_decay)
    _log_groups(trainable, chosen_group, config)

    # The optimizer has no use for our groups as such: it needs one for each pair of decay and rate.
    members: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in trainable.items():
        group = config.groups[chosen_group[name]] if name in chosen_group else None
        factor, weight_decay = _factor_and_decay(group, config)
        factor *= factors[name]
        if not DECAYS[config.decay](name, parameter):
            weight_decay = 0.0
        members.setdefault((weight_decay, factor), []).append((name, parameter))

    groups = [
        {"params": parameters, "weight_decay": weight_decay, "lr_scale": factor}
        for (weight_decay, factor), parameters in members.items()
    ]
    if config.optimizer == "bert_adam":
        return BertAdam(groups, lr=config.lr, schedule=None, betas=config.betas, eps=config.eps, max_grad_norm=None)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def _log_groups(trainable: dict[str, nn.Parameter], chosen_group: dict[str, int], config: OptimConfig) -> None:
    """Log how many parameters each of `config.groups` has, and how many none has."""
    if not config.groups:
        return
    for position, group in [*enumerate(config.groups), (None, None)]:
        counts = [parameter.numel() for name, parameter in trainable.items() if chosen_group.get(name) == position]
        factor, weight_decay = _factor_and_decay(group, config)
        title = "all other parameters" if group is None else f"optim.groups[{position}] ({', '.join(group.names)})"
        logger.info(
            "%s: %s parameters in %d tensors, lr %.3g, weight decay %.3g",
            title, f"{sum(counts):,}", len(counts), factor * config.lr, weight_decay,
        )  # fmt: skip


def _factor_and_decay(group: ParameterGroupConfig | None, config: OptimConfig) -> tuple[float, float]:
    """The factor on `config.lr` and the weight decay of a group, or of what belongs to none."""
    if group is None:
        return 1.0, config.weight_decay
    weight_decay = config.weight_decay if group.weight_decay is None else group.weight_decay
    return group.rate_factor(config.lr), weight_decay


def step_unless(optimizer: torch.optim.Optimizer, skip: torch.Tensor) -> None:
    """Take a step unless `skip`, a float tensor () on the parameters' device, is 1; the host never asks which it was.

    Skipped, neither weights nor moments change. A fused optimizer takes `found_inf` for that from a GradScaler, which
    sets it as we do.
    """
    if isinstance(optimizer, BertAdam):
        optimizer.skip = skip
        optimizer.step()
        return

    assert all(group["fused"] for group in optimizer.param_groups)
    optimizer.found_inf, optimizer.grad_scale = skip, None  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf, optimizer.grad_scale  # type: ignore[attr-defined]


@torch.no_grad()
def clip_each(gradients: list[torch.Tensor], largest_norm: float) -> None:
    """Clip every tensor's gradient to a norm of its own, in place."""
    norms = torch._foreach_norm(gradients)
    for gradient, norm in zip(gradients, norms, strict=True):
        gradient.mul_((largest_norm / (norm + 1e-6)).clamp(max=1.0))
