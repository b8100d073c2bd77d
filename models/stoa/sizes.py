"""Every size of STOA-VLP; the defaults are the published model's."""

from dataclasses import dataclass
from typing import Literal

from configs.aggregation import AggregationConfig
from configs.frame_merging import GroupStep, steps_of
from configs.model import VideoConfig
from configs.models.stoa import StoaConfig
from models.parts.clip.sizes import ImageTowerSizes, TextTowerSizes


@dataclass(frozen=True, kw_only=True)
class StoaSizes:
    """Sizes and branches of the model.

    Attributes:
        joint_depth: how many of the video tower's last blocks see all frames of a clip together.
        fusion_depth, fusion_heads: of the encoder over frames, trajectories, actions and text, `embed_dim` wide.
        fusion_positions: length of its table of positions.
        objects: `fusion` gives trajectories to the fusion encoder; `attention` appends object tokens to the frames in
            a block of the video tower instead, and drops them after it; `none` has neither.
        object_layer: object tokens are computed before this block of the video tower, counted from 1; 0 is the last.
            A negative number -n stands for each of the first n blocks, of which trajectories and actions read the last.
        num_trajectories: classes of objects followed through a clip.
        actions: whether the model has action queries.
        max_words: positions of a text in the fusion encoder; answers are read from the position behind them.
        dropout: on what the heads of the fusion encoder read.
        aggregation: which tokens of the video tower merge.
    """

    image_size: int = 224
    patch_size: int = 16
    num_frames: int = 12
    vision_width: int = 768
    vision_depth: int = 12
    vision_heads: int = 12
    joint_depth: int = 2
    embed_dim: int = 512
    text_width: int = 512
    text_depth: int = 12
    text_heads: int = 8
    context_length: int = 77
    vocab_size: int = 49408
    max_words: int = 32
    fusion_depth: int = 6
    fusion_heads: int = 8
    fusion_positions: int = 210
    objects: Literal["none", "fusion", "attention"] = "fusion"
    object_layer: int = 0
    objects_per_frame: int = 10
    num_trajectories: int = 20
    actions: bool = True
    num_actions: int = 4
    dropout: float = 0.5
    aggregation: AggregationConfig = AggregationConfig()

    def __post_init__(self) -> None:
        if not 1 <= self.joint_depth <= self.vision_depth:
            raise ValueError(f"joint_depth: {self.joint_depth} is not from 1 to vision_depth={self.vision_depth}")
        if abs(self.object_layer) > self.vision_depth:
            raise ValueError(f"object_layer: {self.object_layer} is beyond the vision_depth={self.vision_depth}")
        if self.max_words > self.context_length:
            raise ValueError(f"max_words: {self.max_words} exceed context_length={self.context_length}")
        needed = self.text_start + self.max_words + 1
        if needed > self.fusion_positions:
            raise ValueError(
                f"fusion_positions: {self.fusion_positions} are too few; {self.num_frames} frames, their mean, "
                f"{self.num_trajectories} trajectories, {self.num_actions} actions, {self.max_words} words and an "
                f"answer need {needed}"
            )

    @property
    def image_tower(self) -> ImageTowerSizes:
        """The video tower's sizes as an image tower."""
        return ImageTowerSizes(
            width=self.vision_width,
            depth=self.vision_depth,
            heads=self.vision_heads,
            patch_size=self.patch_size,
            image_size=self.image_size,
            embed_dim=self.embed_dim,
        )

    @property
    def text_tower(self) -> TextTowerSizes:
        """The text tower's sizes."""
        return TextTowerSizes(
            width=self.text_width,
            depth=self.text_depth,
            heads=self.text_heads,
            embed_dim=self.embed_dim,
            context=self.context_length,
            vocab_size=self.vocab_size,
        )

    def group_steps(self, num_frames: int, num_patches: int) -> tuple[GroupStep, ...] | None:
        """What each block of the video tower merges of clips of this size; None if nothing merges."""
        if self.aggregation.reducer == "none":
            return None
        first_joint = self.vision_depth - self.joint_depth
        return steps_of(self.aggregation, num_frames, num_patches, self.vision_depth, first_joint)

    @property
    def object_blocks(self) -> range:
        """The blocks of the video tower, from 0, before which object tokens are computed."""
        if self.object_layer < 0:
            return range(-self.object_layer)
        last = (self.object_layer or self.vision_depth) - 1
        return range(last, last + 1)

    @property
    def text_start(self) -> int:
        """The fusion encoder's position of a text's first token.

        Trajectories and actions keep their positions where a model or a clip has none of them, so that leaving them
        out equals masking them.
        """
        return self.num_frames + 1 + self.num_trajectories + self.num_actions


def sizes_of(model: StoaConfig, video: VideoConfig, aggregation: AggregationConfig | None = None) -> StoaSizes:
    """The sizes of a configuration."""
    return StoaSizes(
        image_size=video.image_size,
        patch_size=model.patch_size,
        num_frames=video.num_frames,
        vision_width=model.width,
        vision_depth=model.depth,
        vision_heads=model.heads,
        joint_depth=model.joint_depth,
        embed_dim=model.embed_dim,
        text_width=model.text.width,
        text_depth=model.text.depth,
        text_heads=model.text.heads,
        context_length=model.text.max_positions,
        vocab_size=model.text.vocab_size,
        max_words=model.max_words,
        fusion_depth=model.fusion_depth,
        fusion_heads=model.fusion_heads,
        fusion_positions=model.fusion_positions,
        objects=model.objects,
        object_layer=model.object_layer,
        objects_per_frame=model.objects_per_frame,
        num_trajectories=model.num_trajectories,
        actions=model.actions,
        num_actions=model.num_actions,
        dropout=model.dropout,
        aggregation=aggregation or AggregationConfig(),
    )
