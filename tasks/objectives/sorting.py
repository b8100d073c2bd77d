"""TVTSv2's pre-training: contrast with the clips of all processes, and the sorting of each clip's transcripts.

By default nothing depends on how many processes share a batch. Shapes: B clips of this process, G of all processes,
P patches a frame, K transcripts a clip, S text tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from configs.schema import SortingObjectiveConfig
from engine.distributed import all_gather_rows, all_gather_rows_with_grad, rank
from models.parts.losses_sorting import SortingLosses, own_slice
from models.trained_protocols import Sorter
from tasks.tubes import kept_patches


class SortingObjective(nn.Module):
    """The losses of a micro-batch, whose mean over processes and micro-batches is the step's loss.

    It keeps nothing between steps: which patches a step hides follows from (seed, step) alone.
    """

    twin = None

    def __init__(
        self, model: Any, objective: SortingObjectiveConfig, positives: Literal["row", "index"], seed: int
    ) -> None:
        super().__init__()
        self.objective, self.seed, self.step = objective, seed, 0
        self._losses = SortingLosses(
            GATHERS[objective.gather], objective.temperature, objective.sort_weight, objective.idle_head
        )
        model.freeze_unused(objective.losses)

    def holds(self) -> dict[str, nn.Module]:
        """Nothing besides the model."""
        return {}

    def begin_step(
        self, model: Any, step: int, epoch: float, batches: Sequence[dict[str, Any]], masks: Sequence[Tensor]
    ) -> None:
        """Note the step, and number its micro-batches: what is hidden follows from both."""
        self.step = step
        for part, batch in enumerate(batches):
            batch["part"] = part

    def forward(self, model: Sorter, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The losses by name; those that the batch's `losses` leave out are not among them.

        `batch` holds `clip` with uint8 pixels (B, T, 3, H, W), `ids` (B * K, S), a clip's texts one after the other,
        and `part`.
        """
        chosen = batch.get("losses", self.objective.losses)
        video_BTCHW = batch["clip"].pixels
        ids_BKS = batch["ids"].unflatten(0, (len(video_BTCHW), -1))
        losses = self._losses(model, video_BTCHW, ids_BKS, kept_patches(model, batch, self.seed, self.step))
        return {name: loss for name, loss in losses.items() if name in chosen}


def gather_own(rows: Tensor) -> Tensor:
    """The rows of all processes, with gradient for this one's alone."""
    return own_slice(rows, all_gather_rows(rows), rank() * len(rows))


GATHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "whole_gradient": all_gather_rows_with_grad,
    "own_gradient": gather_own,
}
"""`objective.gather` by name."""
