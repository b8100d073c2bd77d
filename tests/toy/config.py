"""The toy's sections of a configuration: `model: {name: toy}` and `objective: {name: margin}`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from configs.aggregation import AggregationConfig
from configs.model import TextTowerConfig, VideoConfig, check_positive
from configs.models.base import ModelConfig
from configs.reducers import Axis
from configs.schedule import blocks_from_amount, blocks_from_keep, check_capacity, in_first_blocks
from configs.training import PairObjectiveConfig, TrainConfig

REDUCERS: dict[str, tuple[Axis, ...]] = {"none": (), "tome": ("tokens",)}


@dataclass(frozen=True, kw_only=True)
class ToyConfig(ModelConfig):
    """Colours of patches, some linear layers, and a table of words."""

    name: Literal["toy"] = "toy"
    depth: int = 2
    width: int = 12
    patch_size: int = 8
    embed_dim: int = 6
    text: TextTowerConfig = field(
        default_factory=lambda: TextTowerConfig(tokenizer="from_data", vocab_size=200, max_positions=24)
    )

    def __post_init__(self) -> None:
        check_positive("model", self, "depth", "width", "patch_size", "embed_dim")

    def check(self, video: VideoConfig, aggregation: AggregationConfig) -> None:
        if aggregation.reducer not in REDUCERS:
            raise ValueError(f"aggregation.reducer: toy takes {' and '.join(REDUCERS)}, not {aggregation.reducer!r}")
        self.check_clip(video.num_frames, video.image_size, video)
        token_schedule(self, video, aggregation)

    @property
    def reducers(self) -> Mapping[str, tuple[Axis, ...]]:
        return REDUCERS

    def at_price(
        self,
        aggregation: AggregationConfig,
        video: VideoConfig,
        axes: Sequence[Axis],
        amount: int,
        blocks: int | None = None,
    ) -> AggregationConfig:
        return replace(aggregation, tokens_per_block=in_first_blocks(amount, blocks, self.depth))

    def check_clip(self, num_frames: int, image_size: int, video: VideoConfig) -> None:
        if image_size % self.patch_size:
            raise ValueError(f"image_size {image_size} is no multiple of model.patch_size {self.patch_size}")


def token_schedule(model: ToyConfig, video: VideoConfig, aggregation: AggregationConfig) -> tuple[int, ...]:
    """How many tokens leave in each block."""
    num_tokens = video.num_frames * (video.image_size // model.patch_size) ** 2
    if aggregation.keep is not None:
        return blocks_from_keep(aggregation.keep, num_tokens, 0, model.depth, "aggregation.keep")
    assert not isinstance(aggregation.tokens_per_block, float), "shares are for another reducer"
    name = "aggregation.tokens_per_block"
    schedule = blocks_from_amount(aggregation.tokens_per_block, model.depth, name)  # type: ignore[arg-type]
    check_capacity(schedule, num_tokens, 0, name, "tokens")
    return schedule


@dataclass(frozen=True, kw_only=True)
class MarginConfig(PairObjectiveConfig):
    """Pairs score `margin` higher than others; noise of deviation `noise` is added to the texts' embeddings."""

    name: Literal["margin"] = "margin"
    losses: tuple[Literal["margin", "judge"], ...] = ("margin", "judge")
    margin: float = 0.2
    noise: float = 0.01

    @property
    def teaches(self) -> frozenset[str]:
        return frozenset({"encode_video", "encode_text", "match"})

    def check(self, train: TrainConfig) -> None:
        if train.batch_size // train.accumulate < 2:
            raise ValueError("train.batch_size: a margin needs a second pair; make it 2 or more")
