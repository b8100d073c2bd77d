"""STOA-VLP's `model` section: CLIP's towers, objects and actions of clips, and an encoder that fuses them with text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from configs.aggregation import AggregationConfig
from configs.frame_merging import steps_of
from configs.model import VideoConfig, check_positive, refuse_long_video
from configs.models.base import ModelConfig
from configs.models.clip import ClipTowerConfig
from configs.reducers import Axis

TRAJECTORIES_PER_OBJECT = 2
"""A clip has twice as many trajectories as a frame has objects, as files of objects do."""


@dataclass(frozen=True, kw_only=True)
class StoaConfig(ModelConfig):
    """CLIP's towers (B/16 by default), object and action branches, and the encoder that fuses them with text.

    The last `joint_depth` blocks of the video tower see all frames of a clip together. With `objects: fusion` the
    objects of a class become a trajectory, which the fusion encoder sees; with `attention` they are seen in a block of
    the video tower instead; `none` reads no objects. They are found before block `object_layer`, counted from 1; 0 is
    the last block, and -n each of the first n. `num_actions` queries find what happens, unless `actions` is false.

    The fusion encoder is as wide as `embed_dim`; texts have at most `max_words` tokens in it. `dropout` is on what its
    heads read. `init: clip` draws fresh weights as CLIP and STOA-VLP do, small, to start from CLIP's; `scratch` draws
    embeddings as large as what they are added to, for a narrow model trained from nothing.
    """

    name: Literal["stoa"] = "stoa"
    depth: int = 12
    width: int = 768
    heads: int = 12
    patch_size: int = 16
    joint_depth: int = 2
    objects: Literal["none", "fusion", "attention"] = "fusion"
    objects_per_frame: int = 10
    object_layer: int = 0
    actions: bool = True
    num_actions: int = 4
    fusion_depth: int = 6
    fusion_heads: int = 8
    fusion_positions: int = 210
    max_words: int = 32
    dropout: float = 0.5
    init: Literal["clip", "scratch"] = "clip"
    embed_dim: int = 512
    text: ClipTowerConfig = field(default_factory=ClipTowerConfig)

    def __post_init__(self) -> None:
        sizes = ("depth", "width", "heads", "patch_size", "joint_depth", "objects_per_frame", "num_actions")
        check_positive("model", self, *sizes, "fusion_depth", "fusion_heads", "fusion_positions", "embed_dim")

        for heads, width in (("heads", "width"), ("fusion_heads", "embed_dim")):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"model.{heads}: {getattr(self, heads)} does not divide model.{width} {getattr(self, width)}"
                )

        if self.joint_depth > self.depth:
            raise ValueError(f"model.joint_depth: {self.joint_depth} is more than model.depth {self.depth}")
        if abs(self.object_layer) > self.depth:
            raise ValueError(f"model.object_layer: {self.object_layer} is beyond model.depth {self.depth}")

        if not 3 <= self.max_words <= self.text.max_positions:
            raise ValueError(
                f"model.max_words: {self.max_words} is not from 3 to model.text.max_positions {self.text.max_positions}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout: {self.dropout} is not a share in [0, 1)")

    @property
    def most_tokens(self) -> int:
        """The most tokens of a text, which all have a place in the fusion encoder."""
        return self.max_words

    @property
    def boxes_per_frame(self) -> int | None:
        """The most objects of a frame; None without objects."""
        return None if self.objects == "none" else self.objects_per_frame

    @property
    def num_trajectories(self) -> int:
        """Classes of objects that are followed through a clip."""
        return TRAJECTORIES_PER_OBJECT * self.objects_per_frame

    def check(self, video: VideoConfig, aggregation: AggregationConfig) -> None:
        """Refuse patches that do not tile, too few positions of the fusion encoder, and reducers."""
        self._check_size("video.image_size:", video.image_size)
        refuse_long_video(video, "with stoa, which has no attention over time alone")
        if aggregation.reducer not in self.reducers:
            raise ValueError(
                f"aggregation.reducer: {aggregation.reducer!r} does not go with stoa, whose tower sees each frame "
                f"alone in its first blocks; choose one of {', '.join(self.reducers)}"
            )
        if aggregation.weighted_pooling:
            raise ValueError("aggregation.weighted_pooling: has no effect here: a frame's feature is its class token's")
        if aggregation.reducer == "tempme":
            num_patches = (video.image_size // self.patch_size) ** 2
            steps_of(aggregation, video.num_frames, num_patches, self.depth, self.depth - self.joint_depth)

        # Frames, their mean, trajectories, actions, words, and the place of an answer.
        needed = video.num_frames + 1 + self.num_trajectories + self.num_actions + self.max_words + 1
        if needed > self.fusion_positions:
            raise ValueError(
                f"model.fusion_positions: {self.fusion_positions} are too few: {video.num_frames} frames, their mean, "
                f"{self.num_trajectories} trajectories, {self.num_actions} actions, {self.max_words} words and an "
                f"answer need {needed}"
            )

    @property
    def reducers(self) -> Mapping[str, tuple[Axis, ...]]:
        """Merging of frames; patches are put back for whoever reads them in their places."""
        return {"none": (), "tempme": ("patches",)}

    def at_price(
        self,
        aggregation: AggregationConfig,
        video: VideoConfig,
        axes: Sequence[Axis],
        amount: int,
        blocks: int | None = None,
    ) -> AggregationConfig:
        """The reducer that keeps `amount` patches fewer of a clip, spread over blocks as `keep` says."""
        if blocks is not None:
            raise ValueError("blocks: has no effect on merging of frames, whose blocks are given; leave it out")
        num_patches = video.num_frames * (video.image_size // self.patch_size) ** 2
        return replace(aggregation, keep=1 - amount / num_patches)

    def check_clip(self, num_frames: int, image_size: int, video: VideoConfig) -> None:
        """Refuse more frames than there are positions for, images that patches do not tile, and others with objects."""
        self._check_size("image_size", image_size)
        if num_frames > video.num_frames:
            raise ValueError(f"num_frames {num_frames} is more than video.num_frames {video.num_frames}")
        if self.reads_objects and (num_frames, image_size) != (video.num_frames, video.image_size):
            raise ValueError(
                f"num_frames {num_frames} and image_size {image_size} are not those of the video section, on which "
                "the objects of clips are"
            )

    def _check_size(self, setting: str, image_size: int) -> None:
        if image_size % self.patch_size:
            raise ValueError(f"{setting} {image_size} is no multiple of model.patch_size {self.patch_size}")
