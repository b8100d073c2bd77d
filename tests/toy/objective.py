"""The toy's losses: a margin between pairs and others, and a judge of pairs. It keeps a state and draws at random."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.toy.config import MarginConfig
from tests.toy.model import SCALE, ToyModel

CENTRE_MOMENTUM = 0.9


class MarginObjective(nn.Module):
    """Similarities are taken from a running mean of the videos' embeddings, which a resumed run has to know."""

    centre: Tensor
    twin = None

    def __init__(self, model: ToyModel, objective: MarginConfig, positives: str, seed: int) -> None:
        super().__init__()
        self.objective = objective
        self.share_of_epoch = 0.0
        self.register_buffer("centre", torch.zeros(model.embed_dim))

    def begin_step(
        self, model: ToyModel, step: int, epoch: float, batches: Sequence[dict[str, Any]], masks: Sequence[Tensor]
    ) -> None:
        self.share_of_epoch = min(1.0, epoch)

    def forward(self, model: ToyModel, batch: dict[str, Any]) -> dict[str, Tensor]:
        ids, mask, index = batch["ids"], batch["mask"], batch["index"]
        video, text = model.encode_video(batch["clip"].pixels), model.encode_text(ids, mask)
        words = text.embedding + self.objective.noise * torch.randn_like(text.embedding)

        similarity = (video.embedding - self.centre) @ words.T
        with torch.no_grad():
            self.centre.lerp_(video.embedding.mean(dim=0), 1 - CENTRE_MOMENTUM)

        # Pairs of one video are no negatives of each other.
        is_other = index[:, None] != index[None]
        own = similarity.diagonal()
        short_BB = F.relu(self.share_of_epoch * self.objective.margin + similarity - own[:, None]) * is_other
        softmax = F.cross_entropy(SCALE * similarity.masked_fill(~is_other & ~_diagonal(similarity), -1e4), _rows(ids))

        # Each video with its own text, and with the next one of the batch.
        logits = torch.cat(
            [model.match(video.tokens, ids, mask), model.match(video.tokens, ids.roll(1, 0), mask.roll(1, 0))]
        )
        matches = torch.cat([torch.ones_like(index), (index == index.roll(1)).long()])
        losses = {"margin": short_BB.mean() + softmax, "judge": F.cross_entropy(logits.float(), matches)}
        return {name: losses[name] for name in batch.get("losses", self.objective.losses)}


def _diagonal(square: Tensor) -> Tensor:
    return torch.eye(len(square), dtype=torch.bool, device=square.device)


def _rows(ids: Tensor) -> Tensor:
    return torch.arange(len(ids), device=ids.device)
