"""What the optimizer's section refuses, each with the key and the remedy."""

from typing import Any

import pytest

from configs.load import from_dict
from configs.schema import RetrievalConfig

MINIMAL: dict[str, Any] = {
    "data": {"root": "/data"},
    "optim": {"lr": 1e-5},
    "train": {"batch_size": 8, "max_epochs": 2},
}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": -1e-5}, "lr: -1e-05 is negative"),
        ({"min_lr": 1e-4}, "min_lr: 0.0001 is above optim.lr 1e-05"),
        ({"warmup_lr": 1e-6}, "warmup_lr: has no effect without optim.warmup_steps or optim.warmup_ratio"),
        (
            {"warmup_ratio": 0.1, "warmup_steps": 3},
            "warmup_ratio: give either the ratio or optim.warmup_steps",
        ),
        ({"warmup_ratio": 1.0}, "warmup_ratio: 1.0 leaves nothing of the run after the warm-up"),
        ({"warmup_ratio": -0.1}, "warmup_ratio: -0.1 is negative"),
        ({"decay_rate": 0.9}, "decay_rate: belongs to optim.schedule exponential or step"),
        ({"schedule": "exponential"}, "decay_rate: belongs to optim.schedule exponential or step"),
        ({"schedule": "step", "milestones": [1]}, "decay_rate: belongs to optim.schedule exponential or step"),
        ({"schedule": "step", "decay_rate": 0.1}, "milestones: belong to optim.schedule step, which needs at"),
        ({"milestones": [1]}, "milestones: belong to optim.schedule step, which needs at least one"),
        (
            {"schedule": "step", "decay_rate": 0.1, "milestones": [1], "update": "epoch"},
            "update: has no effect with optim.schedule step, which falls by epoch",
        ),
        (
            {"schedule": "step", "decay_rate": 0.1, "milestones": [2, 1]},
            r"milestones: \[2, 1\] are not ascending epochs",
        ),
        (
            {"schedule": "step", "decay_rate": 0.1, "milestones": [0, 1]},
            r"milestones: \[0, 1\] are not ascending epochs, counted from 1",
        ),
        (
            {"schedule": "step", "decay_rate": 0.1, "milestones": [1, 2, 3]},
            r"milestones: \[2, 3\] have no effect in a run of 2 epochs",
        ),
        ({"groups": [{"names": [], "lr": 1e-3}]}, r"groups\[0\].names: \[\] must be at least one prefix"),
        ({"groups": [{"names": [""], "lr": 1e-3}]}, r"groups\[0\].names: \[''\] must be at least one"),
        ({"groups": [{"names": ["a"]}]}, r"groups\[0\].names: the group changes nothing; give it an lr"),
        (
            {"groups": [{"names": ["a"], "lr": 1.0}, {"names": ["b"], "lr": 1.0, "lr_scale": 2.0}]},
            r"groups\[1\].lr_scale: give either lr or lr_scale",
        ),
        ({"groups": [{"names": ["a"], "lr": 0.0}]}, r"groups\[0\].lr: 0.0 is not above 0; to train nothing"),
        ({"groups": [{"names": ["a"], "weight_decay": -1.0}]}, r"groups\[0\].weight_decay: -1.0 is neg"),
        ({"lr": 0.0, "groups": [{"names": ["a"], "lr": 1.0}]}, "lr: 0 cannot be scaled to the lr of optim.gr"),
        ({"schedule": "exponential", "decay_rate": 1.5}, r"decay_rate: 1.5 is not in \(0, 1\]"),
        (
            {"schedule": "exponential", "decay_rate": 0.9, "update": "epoch"},
            "update: has no effect with optim.schedule exponential",
        ),
        ({"clip_norm": 0.0}, "clip_norm: 0.0 leaves no gradient; null does not clip"),
        ({"layer_decay": 0.0}, r"layer_decay: 0.0 is not in \(0, 1\]"),
        ({"betas": [1.5, 0.9]}, r"betas: \[1.5, 0.9\] are not both in \[0, 1\)"),
    ],
)
def test_the_section_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^test: optim.{message}"):
        from_dict(RetrievalConfig, {**MINIMAL, "optim": {**MINIMAL["optim"], **values}}, "test")
