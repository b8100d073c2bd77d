"""What a process sends to the others in one training step: every collective of more than a few numbers.

Bytes are counted for the ring algorithms, which gloo and nccl use for large messages: an all-reduce sends each part
twice, an all-gather and a reduce-scatter send it once.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from configs.schema import ObjectiveConfig, TaskConfig
from scripts.estimate_scale.sizes import FLOAT, Sizes

INDEX = torch.int64.itemsize


@dataclass(frozen=True)
class Message:
    """What one collective, or several alike, is handed by each process in a step.

    Attributes:
        payload: bytes of the tensors that a process hands in.
    """

    what: str
    collective: Literal["all_reduce", "all_gather", "reduce_scatter"]
    payload: int

    def sent(self, processes: int) -> int:
        """Bytes that one process sends."""
        if self.collective == "all_gather":
            return self.payload * (processes - 1)
        passes = 2 if self.collective == "all_reduce" else 1
        return round(self.payload * passes * (processes - 1) / processes)


def messages(config: TaskConfig, sizes: Sizes, processes: int) -> list[Message]:
    """All of a step; none for a process alone. Flags and norms, a number each, are left out."""
    if processes == 1:
        return []
    counts = 1 if config.reads_questions else 2  # questions; or tokens and the longest text, see tasks/step_counts.py
    found = [
        Message("gradients", "all_reduce", sizes.gradient_bytes),
        Message("counts", "all_gather", config.train.accumulate * counts * INDEX),
    ]
    objective, rows = config.objective, sizes.rows * config.train.accumulate
    if not isinstance(objective, ObjectiveConfig):
        return found
    if "vtc" in objective.losses:
        # A feature of the video, one of the text, and which video it is.
        found.append(
            Message("features of videos and texts", "all_gather", rows * (2 * config.model.embed_dim * FLOAT + INDEX))
        )

    if "vtm" in objective.losses and objective.negatives == "all":
        texts = rows * 2 * sizes.text_tokens * INDEX  # ids and mask
        tokens = rows * sizes.video_bytes
        found += [
            Message("texts for matching", "all_gather", texts),
            Message("video tokens for matching", "all_gather", tokens),
            Message("gradients of video tokens", "reduce_scatter", tokens * processes),
        ]

    return found
