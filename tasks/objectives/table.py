"""The ways to train on pairs of videos and texts, by `objective.name` of the configuration.

An objective is an nn.Module made of (model, its section of the configuration, positives, seed). `begin_step(model,
step, epoch, batches, masks)` is called before an optimizer step; `objective(model, batch)` gives the losses by name,
those of `batch["losses"]` alone where a batch has that.
What it trains besides the model, or keeps from step to step, is in its `state_dict`; a frozen teacher is not. Its
`twin` is the `MomentumTwin` that starts from the same weights as the model, or None.
"""

import pkgutil
from typing import Any

OBJECTIVES: dict[str, str] = {
    "momentum": "tasks.objectives.momentum:MomentumObjective",
}


def objective_class(name: str) -> Any:
    """The class of an objective, imported now."""
    return pkgutil.resolve_name(OBJECTIVES[name])
