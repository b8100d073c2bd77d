"""Pre-training: contrastive, matching and captioning losses on pairs of short videos, or images, and captions."""

from typing import Any

import torch

from configs.schema import PretrainConfig
from tasks.base import PairTask


class PretrainTask(PairTask):
    """TESTA's pre-training: the decoder shares all but self-attention with the text encoder, each pair stands alone."""

    best_metric = None

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        decoder = "tied" if "cap" in config.objective.losses else "none"
        super().__init__(config, device, decoder=decoder, positives="row")

    def evaluate(self) -> dict[str, Any]:
        """Not part of pre-training: its checkpoints are judged by the tasks that start from them."""
        raise ValueError("pre-training has no evaluation; evaluate a checkpoint with train_retrieval.py --evaluate")
