"""The optimizer section: learning rates, schedule, weight decay, parameter groups, frozen parameters."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ParameterGroupConfig:
    """Parameters with their own learning rate or weight decay.

    `names` are patterns, as in `optim.freeze`. `lr` replaces `optim.lr`, or `lr_scale` multiplies it; warm-up, schedule
    and `min_lr` scale with it. `weight_decay` replaces `optim.weight_decay`; `optim.decay` still says what decays.
    """

    names: tuple[str, ...]
    lr: float | None = None
    lr_scale: float | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        # Errors begin with the bare key: a section inside a list does not know its position.
        if not self.names or not all(self.names):
            raise ValueError(
                f"names: {list(self.names)} must be at least one prefix or pattern, and none of them empty"
            )
        if self.lr is not None and self.lr_scale is not None:
            raise ValueError("lr_scale: give either lr or lr_scale, not both")
        if self.lr is None and self.lr_scale is None and self.weight_decay is None:
            raise ValueError("names: the group changes nothing; give it an lr, an lr_scale or a weight_decay")

        for name in ("lr", "lr_scale"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}: {value} is not above 0; to train nothing, list the names in optim.freeze")
        if self.weight_decay is not None and self.weight_decay < 0:
            raise ValueError(f"weight_decay: {self.weight_decay} is negative")

    def rate_factor(self, lr: float) -> float:
        """The group's rate as a multiple of `lr`, the value of `optim.lr`."""
        if self.lr is not None:
            return self.lr / lr
        return 1.0 if self.lr_scale is None else self.lr_scale


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up, over `warmup_steps` steps or `warmup_ratio` of the run, then a falling rate.

    `optimizer: bert_adam` is Adam without bias correction, as CLIP4Clip and STOA-VLP train. `schedule` is `cosine`;
    `cosine_of_run`, the cosine of the progress since the first step; `linear`; `exponential`, which multiplies by
    `decay_rate` every epoch; or `step`, which multiplies by `decay_rate` at the end of each epoch in `milestones`,
    counted from 1. No rate falls below `min_lr`. `update: epoch` holds the cosine's rate constant within an epoch, as
    TESTA's reference does.

    `decay: all` also decays norms, biases and embeddings, `all_but_biases` all of these but biases. `layer_decay` < 1
    lowers the rate towards the input. `clip_norm` clips the norm of all gradients, then `clip_each_norm` that of each
    tensor.

    `freeze` lists prefixes of parameter names, such as `visual_encoder` or `text_encoder.embeddings`, or patterns with
    a `*`, such as `*.norm1`. Each parameter belongs to the first of `groups` that names it.
    """

    lr: float
    optimizer: Literal["adamw", "bert_adam"] = "adamw"
    min_lr: float = 0.0
    warmup_lr: float = 0.0
    warmup_steps: int = 0
    warmup_ratio: float = 0.0
    schedule: Literal["cosine", "cosine_of_run", "linear", "exponential", "step"] = "cosine"
    decay_rate: float | None = None
    milestones: tuple[int, ...] = ()
    update: Literal["step", "epoch"] = "step"
    weight_decay: float = 0.05
    decay: Literal["matrices", "all_but_biases", "all"] = "matrices"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_norm: float | None = None
    clip_each_norm: float | None = None
    layer_decay: float = 1.0
    freeze: tuple[str, ...] = ()
    groups: tuple[ParameterGroupConfig, ...] = ()

    def __post_init__(self) -> None:
        for name in ("lr", "min_lr", "warmup_lr", "warmup_steps", "warmup_ratio", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"optim.{name}: {getattr(self, name)} is negative")
        if self.min_lr > self.lr:
            raise ValueError(f"optim.min_lr: {self.min_lr} is above optim.lr {self.lr}")
        if self.lr == 0 and any(group.lr is not None for group in self.groups):
            raise ValueError("optim.lr: 0 cannot be scaled to the lr of optim.groups; give a rate above 0")

        self._check_schedule()

        for name in ("clip_norm", "clip_each_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"optim.{name}: {value} leaves no gradient; null does not clip")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optim.betas: {list(self.betas)} are not both in [0, 1)")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"optim.layer_decay: {self.layer_decay} is not in (0, 1]; 1 is the same rate everywhere")

    def _check_schedule(self) -> None:
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("optim.warmup_ratio: give either the ratio or optim.warmup_steps, not both")
        if self.warmup_ratio >= 1:
            raise ValueError(f"optim.warmup_ratio: {self.warmup_ratio} leaves nothing of the run after the warm-up")
        if self.warmup_lr and not (self.warmup_steps or self.warmup_ratio):
            raise ValueError("optim.warmup_lr: has no effect without optim.warmup_steps or optim.warmup_ratio")

        falls_by_epoch = self.schedule in ("exponential", "step")
        if falls_by_epoch == (self.decay_rate is None):
            raise ValueError("optim.decay_rate: belongs to optim.schedule exponential or step, which need it")
        if self.decay_rate is not None and not 0 < self.decay_rate <= 1:
            raise ValueError(f"optim.decay_rate: {self.decay_rate} is not in (0, 1]")
        if self.schedule != "cosine" and self.update != "step":
            falls = "by epoch" if falls_by_epoch else "with every step"
            raise ValueError(f"optim.update: has no effect with optim.schedule {self.schedule}, which falls {falls}")

        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError("optim.milestones: belong to optim.schedule step, which needs at least one")
        if list(self.milestones) != sorted(set(self.milestones)) or any(epoch < 1 for epoch in self.milestones):
            raise ValueError(f"optim.milestones: {list(self.milestones)} are not ascending epochs, counted from 1")


def check_milestones(optim: OptimConfig, max_epochs: int) -> None:
    """Refuse milestones in or after the last epoch, which have no effect."""
    late = [epoch for epoch in optim.milestones if epoch >= max_epochs]
    if late:
        raise ValueError(
            f"optim.milestones: {late} have no effect in a run of {max_epochs} epochs; leave them out or raise "
            "train.max_epochs"
        )
