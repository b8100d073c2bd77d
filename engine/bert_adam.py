"""BertAdam: Adam without bias correction, with decoupled weight decay, and a learning-rate schedule of its own."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def warmup_cosine(progress: float, warmup: float) -> float:
    """The factor on the learning rate: linear up to 1, then a cosine over the whole run, so that it drops at once."""
    return progress / warmup if progress < warmup else 0.5 * (1 + math.cos(math.pi * progress))


def warmup_linear(progress: float, warmup: float) -> float:
    """The factor on the learning rate: linear up to 1, then linear down to 0 at the end of the run."""
    return progress / warmup if progress < warmup else max((progress - 1) / (warmup - 1), 0.0)


def warmup_constant(progress: float, warmup: float) -> float:
    """The factor on a learning rate: a line up to 1, where it stays."""
    return min(progress / warmup, 1.0)


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "warmup_cosine": warmup_cosine,
    "warmup_linear": warmup_linear,
    "warmup_constant": warmup_constant,
}


class BertAdam(torch.optim.Optimizer):
    """The optimizer of Google's BERT, as CLIP4Clip and STOA-VLP use it.

    Args:
        groups: parameter groups with their own `lr` and `weight_decay`.
        total_steps: steps of the run, over which `schedule` changes the rate of every group.
        warmup: the share of the run in which the rate rises.
        schedule: one of `SCHEDULES`; None where the rates of the groups are set from outside before each step.
        max_grad_norm: the norm to clip each parameter's own gradient to; None for no clipping.
    """

    def __init__(
        self,
        groups: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        total_steps: int = 1,
        warmup: float = 0.1,
        schedule: str | None = "warmup_cosine",
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.2,
        max_grad_norm: float | None = 1.0,
    ) -> None:
        if schedule is not None and schedule not in SCHEDULES:
            raise ValueError(f"schedule: {schedule!r} is none of {', '.join(SCHEDULES)}")
        if not 0 < warmup < 1:
            raise ValueError(f"warmup: {warmup} is not a share of the run between 0 and 1")

        self.total_steps, self.warmup = total_steps, warmup
        self.schedule = None if schedule is None else SCHEDULES[schedule]
        self.skip: Tensor | None = None
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "max_grad_norm": max_grad_norm}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step at the scheduled rate; that of the first step is 0.

        Where `skip`, a float tensor (), is 1, nothing changes.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=torch.zeros(()), mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))

        if group["max_grad_norm"] is not None:
            factor = group["max_grad_norm"] / (gradient.norm() + 1e-6)
            gradient = gradient * factor.clamp(max=1.0)

        # A step that is skipped moves nothing: its gradient, which may not be finite, is replaced and its shares are 0.
        taken: Tensor | float = 1.0
        if self.skip is not None:
            taken = 1 - self.skip.to(parameter.device)
            gradient = torch.where(taken.bool(), gradient, 0.0)

        first, second = group["betas"]
        mean, square = state["mean"], state["square"]
        mean.mul_(1 - (1 - first) * taken).add_(gradient * (1 - first))
        square.mul_(1 - (1 - second) * taken).addcmul_(gradient, gradient, value=1 - second)
        update = mean / (square.sqrt() + group["eps"]) + group["weight_decay"] * parameter

        rate = group["lr"]
        if self.schedule is not None:
            rate *= self.schedule(float(state["step"]) / self.total_steps, self.warmup)
        parameter.sub_(update * (rate * taken))
        state["step"] += 1
