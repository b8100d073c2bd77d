"""TVTSv2's pre-training losses: find each clip's text among those of all processes, and sort each clip's transcripts.

Zeng et al., 2023. Shapes: G clips of all processes, B of this one, K transcripts a clip, S tokens, E shared width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.losses import similarities
from models.trained_protocols import Sorter

TEMPERATURE = 0.05
SORT_WEIGHT = 2.0
SMALLEST_NORM = 1e-8


def cosine_matrix(video_GE: Tensor, text_GE: Tensor) -> Tensor:
    """Cosines (G, G), float32, videos in rows."""
    video, text = (F.normalize(part.float(), dim=-1, eps=SMALLEST_NORM) for part in (video_GE, text_GE))
    return similarities(video, text)


def contrastive_loss(video_GE: Tensor, text_GE: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Cross-entropy of video-to-text plus text-to-video retrieval; row i belongs to row i."""
    logits = cosine_matrix(video_GE, text_GE) / temperature
    targets = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)


def sorting_loss(order_logits: Tensor, order_BK: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of each transcript's place; by default the transcripts are in order of time."""
    batch, num_texts, num_places = order_logits.shape
    if num_places != num_texts:
        raise ValueError(
            f"model.num_transcripts: {num_places} places for {num_texts} transcripts; set it to {num_texts}"
        )
    if order_BK is None:
        order_BK = torch.arange(num_texts, device=order_logits.device).expand(batch, -1)
    return F.cross_entropy(order_logits.float().flatten(0, 1), order_BK.flatten())


@torch.no_grad()
def sorted_right(order_logits: Tensor, order_BK: Tensor | None = None) -> Tensor:
    """Whether each transcript (B, K) is given its place, bool; by default they are in order of time."""
    num_texts = order_logits.shape[1]
    expected = torch.arange(num_texts, device=order_logits.device) if order_BK is None else order_BK
    return order_logits.argmax(dim=-1) == expected


def own_slice(own_BE: Tensor, gathered_GE: Tensor, first_row: int) -> Tensor:
    """The rows `gathered_GE` of all processes, with gradient only for this process' own rows.

    With W processes, whose gradients are averaged, the contrastive gradient is 1 / W of the true one; this is what
    the reference does. By default gather with summed gradients, which depends on no number of processes.
    """
    gathered, end = gathered_GE.detach(), first_row + len(own_BE)
    return torch.cat([gathered[:first_row], own_BE, gathered[end:]])


def row_noise(seed: int, step: int, part: int, rows: int, columns: int) -> Tensor:
    """Uniform noise (rows, columns) on the CPU, a function of the seed, the step and its part alone."""
    mixed = (seed * 1_000_003 + step) * 1_009 + part
    return torch.rand((rows, columns), generator=torch.Generator().manual_seed(mixed % (2**63)))


def _alone(rows: Tensor) -> Tensor:
    return rows


@dataclass(frozen=True)
class SortingLosses:
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
        self, model: Sorter, video_BTCHW: Tensor, ids_BKS: Tensor, keep_BL: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`contrastive`, of the clips of all processes, and `sorting`, weighted, where a clip has several texts."""
        found = model.sort(video_BTCHW, ids_BKS, keep_BL)
        video, text = self.gather(found.video), self.gather(found.text)
        losses = {"contrastive": contrastive_loss(video, text, self.temperature)}
        if found.order_logits is not None:
            losses["sorting"] = self.sort_weight * sorting_loss(found.order_logits)
        elif self.idle_head == "moves" and model.sorting_head is not None:
            # A gradient of 0 is not the same as none: the optimizer applies its momentum and decay.
            parameters = [parameter.sum() for parameter in model.sorting_head.parameters()]
            losses["contrastive"] = losses["contrastive"] + 0 * torch.stack(parameters).sum()
        return losses
