"""The losses of an encoder that fuses clips and texts: contrast, matching, masked words, writing and alignment.

The model takes them; this says which, of what, and that all processes share a batch. Each is the mean over the terms of
a micro-batch on all processes.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from configs.schema import FusionObjectiveConfig
from models.trained_protocols import FusionModel
from tasks.clips import encode_clip
from tasks.processes import all_processes
from tasks.step_counts import count_texts


class FusionObjective(nn.Module):
    """The losses of a micro-batch, scaled so that their mean over processes is the loss of the step.

    Args:
        positives: with `row` each pair stands alone (pre-training); with `index` texts of one video are no negatives of
            each other (fine-tuning).
    """

    twin = None

    def __init__(
        self, model: FusionModel, objective: FusionObjectiveConfig, positives: Literal["row", "index"], seed: int
    ) -> None:
        super().__init__()
        self.objective, self.positives, self.seed = objective, positives, seed
        self.step, self.epoch = 0, 0.0
        # The published code keeps contrast from the video tower in pre-training alone.
        self.contrast_reaches_frames = not (objective.reference_form and positives == "row")
        model.freeze_unused(objective.losses, self.contrast_reaches_frames)

    def holds(self) -> dict[str, nn.Module]:
        """Nothing besides the model."""
        return {}

    def begin_step(
        self,
        model: FusionModel,
        step: int,
        epoch: float,
        batches: Sequence[dict[str, Any]],
        masks: Sequence[Tensor],
    ) -> None:
        """Prepare an optimizer step: clamp the temperature, and number the micro-batches."""
        model.clamp_temperature()
        self.step, self.epoch = step, epoch
        count_texts(batches, masks)

    def forward(self, model: FusionModel, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The losses by name; a batch's `losses`, if present, choose some of the objective's.

        `batch` holds `clip` with what goes along with it, `ids` and `mask` (B, S), `index` (B,), the number of the
        micro-batch, and for `align` under `tags` which tokens are nouns, and which verbs, (B, S) both.
        """
        chosen = self.taken(batch.get("losses", self.objective.losses))
        video = encode_clip(model, batch["clip"])
        losses = model.take_losses(
            chosen,
            video,
            batch["ids"],
            batch["mask"],
            batch.get("tags"),
            seed=self.seed,
            step=self.step,
            part=batch["part"],
            contrast_reaches_frames=self.contrast_reaches_frames,
            videos_of_rows=batch["index"] if self.positives == "index" else None,
            processes=all_processes(),
        )
        if "align" in losses:
            losses["align"] = losses["align"] * self.objective.align_weight
        return losses

    def taken(self, chosen: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the losses that this epoch takes: contrast may be for the first ones alone."""
        first_epochs = self.objective.vtc_epochs
        is_over = first_epochs is not None and self.epoch >= first_epochs
        return tuple(loss for loss in chosen if loss != "vtc" or not is_over)
