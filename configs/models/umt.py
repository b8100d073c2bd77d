"""UMT's models (ICCV 2023), which vid-TLDR (CVPR 2024) reduces: the `model` section chosen by `model.name: umt`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from configs.aggregation import AggregationConfig
from configs.model import TextConfig, VideoConfig, check_positive, refuse_long_video
from configs.models.base import ModelConfig
from configs.reducers import BEFORE_BLOCKS, Axis, why_not
from configs.run_length import inside_schedule
from configs.schedule import (
    blocks_from_keep,
    blocks_from_tokens,
    check_capacity,
    in_first_blocks,
    share_without,
)
from configs.squares import check_squares

REDUCERS: dict[str, tuple[Axis, ...]] = {
    "none": (),
    "importance": ("tokens",),
    "prune": ("tokens",),
    "tome": ("tokens",),
    "saliency": ("tokens",),
    "run_length": ("tokens",),
    "quadtree": ("tokens",),
}
"""The reducers for attention over space and time at once, and the axis that each shortens."""


@dataclass(frozen=True, kw_only=True)
class SplitTextConfig(TextConfig):
    """BERT split in two: layers below `fusion_layer` read only text, the others also attend to the video.

    The defaults are bert-base-uncased, as in UMT's B/16; L/16 uses bert-large-uncased (24 layers, fusion_layer 19).
    `weights` is a file of BERT's own, such as `hf://google-bert/bert-base-uncased/model.safetensors`: the tower starts
    from it where `checkpoint` holds no text tower.
    """

    weights: str | None = None
    vocab_size: int = 30522
    token_types: int = 2
    fusion_layer: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("model.text", self, "token_types")
        if not 0 < self.fusion_layer < self.depth:
            raise ValueError(
                f"model.text.fusion_layer: {self.fusion_layer} leaves no layer on one side; of {self.depth} layers it "
                f"has to be 1 to {self.depth - 1}"
            )
        if self.width % self.heads:
            raise ValueError(f"model.text.heads: {self.heads} does not divide model.text.width {self.width}")


@dataclass(frozen=True, kw_only=True)
class UMTConfig(ModelConfig):
    """The video encoder (B/16 by default), the text encoder, and the size of the space they share.

    `pooling` says how a video's embedding is made. `frames` pools each frame alone, as in UMT's training, and a
    similarity is the mean over frames. `all` takes the mean of all tokens, which a reducer needs. `checkpoint_frames`
    is the length of the position table in the weights, if it differs from `video.num_frames`; the table is then
    interpolated in time.
    """

    name: Literal["umt"] = "umt"
    depth: int = 12
    width: int = 768
    heads: int = 12
    patch_size: int = 16
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    pooling: Literal["frames", "all"] = "frames"
    checkpoint_frames: int | None = None
    embed_dim: int = 512
    text: SplitTextConfig = field(default_factory=SplitTextConfig)

    def __post_init__(self) -> None:
        check_positive("model", self, "depth", "width", "heads", "patch_size", "embed_dim")
        if self.checkpoint_frames is not None and self.checkpoint_frames < 1:
            raise ValueError(f"model.checkpoint_frames: {self.checkpoint_frames} is less than 1")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"model.drop_path: {self.drop_path} is not a share in [0, 1)")
        if self.width % self.heads:
            raise ValueError(f"model.heads: {self.heads} does not divide model.width {self.width}")

    def check(self, video: VideoConfig, aggregation: AggregationConfig) -> None:
        """Refuse patches that do not tile the image, a reducer that UMT lacks, and a reducer with pooling by frame."""
        if video.image_size % self.patch_size:
            raise ValueError(
                f"video.image_size: {video.image_size} is no multiple of model.patch_size {self.patch_size}"
            )

        refuse_long_video(video, "with attention over space and time at once")
        if aggregation.reducer not in REDUCERS:
            raise ValueError(
                f"aggregation.reducer: {aggregation.reducer!r} does not go with attention over space and time at once; "
                f"choose one of {', '.join(REDUCERS)}{why_not(aggregation.reducer, 'joint')}"
            )
        for name in ("frames_per_block", "patches_per_block"):
            if getattr(aggregation, name) != 0:
                raise ValueError(f"aggregation.{name}: tokens of all frames merge here; set tokens_per_block")
        if aggregation.proportional_attention:
            raise ValueError("aggregation.proportional_attention: leave it out; UMT's attention always has it")
        if aggregation.weighted_pooling:
            raise ValueError("aggregation.weighted_pooling: UMT's models pool by the plain mean; leave it out")

        schedule = token_schedule(self, video, aggregation)
        if (any(schedule) or aggregation.reducer in BEFORE_BLOCKS) and self.pooling == "frames":
            raise ValueError("model.pooling: frames has no meaning once tokens stand for several frames; set it to all")

    @property
    def matches_some_tokens(self) -> bool:
        """Texts attend to a video's tokens, so they can attend to some of them."""
        return True

    @property
    def reducers(self) -> Mapping[str, tuple[Axis, ...]]:
        """The reducers that the encoder can do, and the axis that each shortens."""
        return REDUCERS

    def at_price(
        self,
        aggregation: AggregationConfig,
        video: VideoConfig,
        axes: Sequence[Axis],
        amount: int,
        blocks: int | None = None,
    ) -> AggregationConfig:
        """The reducer with `amount` tokens leaving in every block, or in the first `blocks`."""
        if aggregation.reducer in BEFORE_BLOCKS:
            tokens = video.num_frames * (video.image_size // self.patch_size) ** 2
            return replace(aggregation, keep=share_without(amount, tokens, blocks))
        return replace(aggregation, tokens_per_block=in_first_blocks(amount, blocks, self.depth))

    def check_clip(self, num_frames: int, image_size: int, video: VideoConfig) -> None:
        """Refuse image sizes that the position table is not made for; any number of frames fits."""
        if image_size != video.image_size:
            raise ValueError(
                f"image_size {image_size} is not video.image_size {video.image_size}, which positions need"
            )


def token_schedule(model: UMTConfig, video: VideoConfig, aggregation: AggregationConfig) -> tuple[int | float, ...]:
    """What leaves in each block: a number of tokens, or a share of the tokens that reach it."""
    num_patches = (video.image_size // model.patch_size) ** 2
    num_tokens = video.num_frames * num_patches
    if aggregation.reducer == "run_length":
        return inside_schedule(aggregation, model.depth, video.num_frames, num_patches)
    if aggregation.reducer == "quadtree":
        side = video.image_size // model.patch_size
        check_squares(aggregation, video.num_frames, side, side)
    if aggregation.reducer in ("none", *BEFORE_BLOCKS):
        return (0,) * model.depth
    if aggregation.keep is not None:
        return blocks_from_keep(aggregation.keep, num_tokens, 0, model.depth, "aggregation.keep")
    schedule = blocks_from_tokens(aggregation.tokens_per_block, model.depth, "aggregation.tokens_per_block")
    check_capacity(schedule, num_tokens, 0, "aggregation.tokens_per_block", "tokens")
    return schedule
