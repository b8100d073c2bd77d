"""Budgets that training draws: `aggregation.train_keep`, from which share to which the tokens of a step are kept."""

from configs.aggregation import AggregationConfig
from configs.model import VideoConfig
from configs.schedule import check_first_frame
from configs.training import TrainConfig


def check_budgets(
    aggregation: AggregationConfig, video: VideoConfig, train: TrainConfig, trains_in_steps: bool
) -> None:
    """Refuse drawn budgets that are too small for a video, that nothing trains with, or that compile many graphs."""
    if aggregation.train_keep is None:
        return
    name = "aggregation.train_keep"
    check_first_frame(aggregation.train_keep[0], video.num_frames, name, "; null switches it off, as for an evaluation")
    if not trains_in_steps:
        raise ValueError(f"{name}: has no effect on a probe, which trains in no steps; leave it out")
    if train.compile:
        raise ValueError(
            f"{name}: every budget would be compiled to a graph of its own; set train.compile=false, or leave "
            "train_keep out"
        )
