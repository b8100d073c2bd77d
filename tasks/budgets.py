"""The budgets that training draws: which share of a video's tokens is kept in a step (`aggregation.train_keep`)."""

from torch import nn

from configs.aggregation import AggregationConfig
from datasets.sampling import generator
from models.parts.run_length import set_keep


def draw_keep(module: nn.Module, aggregation: AggregationConfig, seed: int, step: int) -> None:
    """Let all encoders in `module` keep a share that follows from seed and step alone, if training draws it.

    So all processes and micro-batches of a step keep the same share, and a resumed run keeps what it would have kept.
    """
    if aggregation.train_keep is not None:
        set_keep(module, float(generator("budget", seed, 0, step).uniform(*aggregation.train_keep)))


def restore_keep(module: nn.Module, aggregation: AggregationConfig) -> None:
    """Let all encoders in `module` keep the configured share again, whatever the last step drew."""
    if aggregation.train_keep is not None:
        assert aggregation.keep is not None, "the configuration checks it"
        set_keep(module, aggregation.keep)
