"""Recognition without its data: a head for an assumed number of classes, and labels for any video."""

import torch
from torch import Tensor

from configs.recognition import OPTION_DATASETS
from configs.schema import RecognitionConfig, RunConfig
from models.parts.class_head import ClassHead
from tasks.annotations import Part
from tasks.recognition import RecognitionTask

NUM_CLASSES = 1000
"""Assumed of a head, whose classes only the data know; with published ones it is smaller than all else."""
MOST_ROWS = 1 << 20


class PlannedRecognition(RecognitionTask):
    """The task with a fresh head; its training videos are all of one class."""

    def __init__(self, config: RecognitionConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.head = ClassHead(self.model.embed_dim, NUM_CLASSES, getattr(config.objective, "dropout", 0.0))

    def labels(self, part: Part) -> Tensor:
        """The same class for each of as many videos as any batch has."""
        return torch.zeros(1, dtype=torch.int64).expand(MOST_ROWS)


def trains_in_steps(config: RunConfig) -> bool:
    """Whether optimizer steps are planned; otherwise what encodes videos without gradient: a probe, or options."""
    if not isinstance(config, RecognitionConfig):
        return True
    return config.trains_in_steps and config.data.dataset not in OPTION_DATASETS
