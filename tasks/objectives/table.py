"""The ways to train on pairs of videos and texts, by `objective.name` of the configuration.

An objective is an nn.Module, built from (model, its section of the configuration, positives, seed).
`begin_step(model, step, epoch, batches, masks)` runs before each optimizer step. `objective(model, batch)` returns the
losses by name; if a batch has `losses`, only the ones listed there.
The `state_dict` holds what the objective trains besides the model or keeps between steps, but no frozen teacher. `twin`
is the `MomentumTwin` that starts from the model's weights, or None.
`holds()` are the modules that it keeps besides the model, by kind: `twin`, `queue`, `teacher`. `scripts.plan_memory`
counts them, also those that are no part of the objective's own parameters.
"""

import pkgutil
from typing import Any

OBJECTIVES: dict[str, str] = {
    "momentum": "tasks.objectives.momentum:MomentumObjective",
    "unmasked_teacher": "tasks.objectives.unmasked_teacher:UnmaskedTeacherObjective",
    "fusion": "tasks.objectives.fusion:FusionObjective",
    "sorting": "tasks.objectives.sorting:SortingObjective",
}


def objective_class(name: str) -> Any:
    """Import and return the class of an objective."""
    return pkgutil.resolve_name(OBJECTIVES[name])
