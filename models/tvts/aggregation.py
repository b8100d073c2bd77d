"""Which frames and patches of a clip merge in TVTSv2's video tower, and how many in each block."""

from dataclasses import dataclass, field
from typing import Literal

from configs.schedule import blocks_from_amount, blocks_from_keep, check_capacity, keep_per_axis
from configs.schema import AggregationConfig
from models.parts.aggregation import TokenAggregator


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
    def of(cls, settings: AggregationConfig, depth: int, num_frames: int, num_patches: int) -> "ClipSchedules":
        """The schedules for clips of this size; ValueError names a setting that they cannot hold."""
        if settings.reducer in ("tome", "saliency"):
            raise ValueError(f"aggregation.reducer: {settings.reducer} needs joint attention; this tower's is divided")
        if settings.keep is None:
            frames, patches = (
                blocks_from_amount(amount, depth, f"aggregation.{axis}_per_block")
                for axis, amount in (("frames", settings.frames_per_block), ("patches", settings.patches_per_block))
            )
            check_capacity(frames, num_frames, 1, "aggregation.frames_per_block", "frames")
            check_capacity(patches, num_patches, 0, "aggregation.patches_per_block", "patches")
            return cls(frames, patches, settings)

        # A single frame cannot merge in time: then space alone keeps the share.
        merging = (num_frames > 1) + (num_patches > 1)
        if not merging:
            raise ValueError("aggregation.keep: one frame of one patch has nothing to merge")
        share = keep_per_axis(settings.keep, merging)
        frames, patches = (
            blocks_from_keep(share, count, protected, depth, "aggregation.keep") if count > 1 else (0,) * depth
            for count, protected in ((num_frames, 1), (num_patches, 0))
        )
        return cls(frames, patches, settings)

    @property
    def proportional_attention(self) -> bool:
        """Whether sizes are a bias of attention; where nothing merges all are 1, and their logarithm is none."""
        return self.settings.proportional_attention and any((*self.frames, *self.patches))

    def aggregator(self, axis: Literal["time", "space"], block: int) -> TokenAggregator:
        """The aggregator of one axis of one block."""
        amount = (self.frames if axis == "time" else self.patches)[block]
        return TokenAggregator(self.settings.reducer, axis, amount, self.settings.frame_match, self.settings.order)
