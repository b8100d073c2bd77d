"""TVTSv2's pre-training step: find each clip's text among those of all processes, and sort each clip's transcripts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.tvts.losses import SORT_WEIGHT, TEMPERATURE, contrastive_loss, sorting_loss
from models.tvts.model import Tvts


def _alone(rows: Tensor) -> Tensor:
    return rows


@dataclass(frozen=True)
class SortingObjective:
    """Losses of one batch, all clips of which have equally many texts.

    Attributes:
        gather: makes the rows (G, E) of all processes of those of this one (B, E). With the sum of all processes'
            gradients behind them, averaged gradients are those of one process with all clips. With `own_slice`, as in
            the reference, the contrastive gradient of W processes is 1 / W of that.
        sort_weight: of the sorting loss beside the contrastive one.
        idle_head: whether the sorting head `rests` in batches of single captions, or `moves` by the optimizer's
            momentum and decay, as in the reference.
    """

    gather: Callable[[Tensor], Tensor] = _alone
    temperature: float = TEMPERATURE
    sort_weight: float = SORT_WEIGHT
    idle_head: Literal["rests", "moves"] = "rests"

    def __call__(
        self, model: Tvts, video_BTCHW: Tensor, ids_BKS: Tensor, keep_BL: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`contrastive`, of the clips of all processes, and `sorting`, weighted, where a clip has several texts."""
        found = model.sort(video_BTCHW, ids_BKS, keep_BL)
        video, text = self.gather(found.video), self.gather(found.text)
        losses = {"contrastive": contrastive_loss(video, text, self.temperature)}
        if found.order_logits is not None:
            losses["sorting"] = self.sort_weight * sorting_loss(found.order_logits)
        elif self.idle_head == "moves" and model.pred_model is not None:
            # A gradient of 0 is not the same as none: the optimizer applies its momentum and decay.
            parameters = [parameter.sum() for parameter in model.pred_model.parameters()]
            losses["contrastive"] = losses["contrastive"] + 0 * torch.stack(parameters).sum()
        return losses
