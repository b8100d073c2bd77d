"""Which frames and patches of a clip merge in TVTSv2's video tower, and how many in each block."""

from dataclasses import dataclass, field
from typing import Literal

from configs.aggregation import AggregationConfig
from configs.divided import divided_schedules
from models.parts.aggregation import TokenAggregator
from models.parts.clip.sizes import ImageTowerSizes


@dataclass(frozen=True)
class ClipSchedules:
    """How many frames and patches leave in each block, and by which reducer."""

    frames: tuple[int, ...]
    patches: tuple[int, ...]
    settings: AggregationConfig = field(default_factory=AggregationConfig)

    @classmethod
    def none(cls, depth: int) -> "ClipSchedules":
        """Nothing merges."""
        return cls((0,) * depth, (0,) * depth)

    @classmethod
    def of(cls, settings: AggregationConfig, image: ImageTowerSizes, num_frames: int) -> "ClipSchedules":
        """The schedules for clips of `num_frames` frames; ValueError names a setting that has no place here."""
        schedules = divided_schedules(settings, image.depth, num_frames, image.grid**2)
        return cls(schedules["frames"], schedules["patches"], settings)

    @property
    def proportional_attention(self) -> bool:
        """Whether log(size) is added in attention; if nothing merges, all sizes are 1 and the bias would be 0."""
        return self.settings.proportional_attention and any((*self.frames, *self.patches))

    def aggregator(self, axis: Literal["time", "space"], block: int) -> TokenAggregator:
        """The aggregator of one axis of one block."""
        amount = (self.frames if axis == "time" else self.patches)[block]
        return TokenAggregator(self.settings.reducer, axis, amount, self.settings.frame_match, self.settings.order)
