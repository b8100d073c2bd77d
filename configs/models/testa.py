"""TESTA's `model` section: a ViT with divided, joint or space-only attention, and BERT towers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from configs import divided
from configs.aggregation import AggregationConfig
from configs.model import TextConfig, VideoConfig, check_positive, refuse_long_video
from configs.models.base import ModelConfig
from configs.reducers import BEFORE_BLOCKS, Axis, why_not
from configs.run_length import inside_schedule, refuse_inside
from configs.schedule import (
    blocks_from_amount,
    blocks_from_keep,
    blocks_from_tokens,
    check_capacity,
    held_schedule,
    keep_per_axis,
    kept_of_share,
    share_without,
)
from configs.squares import check_squares

ATTENTION_REDUCERS: dict[str, dict[str, tuple[Axis, ...]]] = {
    "divided": divided.REDUCERS,
    "joint": {
        "none": (),
        "tome": ("tokens",),
        "saliency": ("tokens",),
        "run_length": ("tokens",),
        "quadtree": ("tokens",),
    },
    "space": {"none": ()},
}
"""The reducers for each kind of attention, and the axes that each can shorten."""


@dataclass(frozen=True, kw_only=True)
class TestaConfig(ModelConfig):
    """The video encoder (ViT-B/16 by default), the text towers, and the size of the space they share.

    `init` says how fresh weights are drawn. `vit` is the reference's way, small and with temporal attention that has no
    effect at first, to start from image weights. `scratch` is for a narrow model trained from nothing.
    """

    name: Literal["testa"] = "testa"
    attention: Literal["divided", "joint", "space"] = "divided"
    depth: int = 12
    width: int = 768
    heads: int = 12
    patch_size: int = 16
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    temporal_scaling: bool = False
    init: Literal["vit", "scratch"] = "vit"
    embed_dim: int = 256
    text: TextConfig = field(default_factory=TextConfig)

    def __post_init__(self) -> None:
        check_positive("model", self, "depth", "width", "heads", "patch_size", "embed_dim")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"model.drop_path: {self.drop_path} is not a share in [0, 1)")
        if self.width % self.heads:
            raise ValueError(f"model.heads: {self.heads} does not divide model.width {self.width}")
        if self.text.width % self.text.heads:
            raise ValueError(f"model.text.heads: {self.text.heads} does not divide model.text.width {self.text.width}")
        if self.temporal_scaling and self.attention != "divided":
            raise ValueError("model.temporal_scaling: has no effect without divided attention")

    def check(self, video: VideoConfig, aggregation: AggregationConfig) -> None:
        """Refuse patches that do not tile, a reducer for other attention, and amounts that an axis cannot hold."""
        if video.image_size % self.patch_size:
            raise ValueError(
                f"video.image_size: {video.image_size} is no multiple of model.patch_size {self.patch_size}"
            )

        if self.attention != "divided":
            refuse_long_video(video, f"with {self.attention} attention")

        if aggregation.reducer not in self.reducers:
            raise ValueError(
                f"aggregation.reducer: {aggregation.reducer!r} does not go with {self.attention} attention, "
                f"which takes {', '.join(self.reducers)}{why_not(aggregation.reducer, self.attention)}"
            )

        if aggregation.reducer == "saliency":
            idle = "patches_per_block" if self.attention == "joint" else "tokens_per_block"
            if getattr(aggregation, idle) != 0:
                raise ValueError(f"aggregation.{idle}: has no effect with {self.attention} attention; leave it out")

        schedules = block_schedules(self, video, aggregation)
        if self.temporal_scaling and any(schedules["frames"]):
            raise ValueError(
                "model.temporal_scaling: has one factor a frame, so frames cannot merge; set frames_per_block to 0"
            )

    @property
    def matches_some_tokens(self) -> bool:
        """Texts attend to a video's tokens, so they can attend to some of them."""
        return True

    @property
    def reducers(self) -> Mapping[str, tuple[Axis, ...]]:
        """The reducers for this attention, and the axes that each can shorten."""
        return ATTENTION_REDUCERS[self.attention]

    def at_price(
        self,
        aggregation: AggregationConfig,
        video: VideoConfig,
        axes: Sequence[Axis],
        amount: int,
        blocks: int | None = None,
    ) -> AggregationConfig:
        """The reducer with `amount` leaving each axis in a block; of frames and patches, patches in proportion."""
        patches = (video.image_size // self.patch_size) ** 2
        if aggregation.reducer in BEFORE_BLOCKS:
            return replace(aggregation, keep=share_without(amount, video.num_frames * patches, blocks))
        return divided.at_price(aggregation, axes, amount, video.num_frames, patches, self.depth, blocks)

    def check_clip(self, num_frames: int, image_size: int, video: VideoConfig) -> None:
        """Refuse clips whose size differs from `video` and does not fit, such as a pre-training source's."""
        if image_size % self.patch_size:
            raise ValueError(f"image_size {image_size} is no multiple of model.patch_size {self.patch_size}")
        if self.temporal_scaling and num_frames != video.num_frames:
            raise ValueError(f"num_frames {num_frames} needs as many factors of model.temporal_scaling")


def block_schedules(
    model: TestaConfig, video: VideoConfig, aggregation: AggregationConfig
) -> dict[str, tuple[int, ...]]:
    """How many frames, patches (divided attention) and tokens (joint) leave in each block; 0 where nothing does."""
    if aggregation.reducer == "run_length":
        return _run_length_schedules(model, video, aggregation)
    if aggregation.reducer == "quadtree":
        side = video.image_size // model.patch_size
        check_squares(aggregation, video.num_frames, side, side)
        return dict.fromkeys(("frames", "patches", "tokens"), (0,) * model.depth)

    patches = (video.image_size // model.patch_size) ** 2
    # (axis, how much it holds at first, how many of these the reference protects)
    divided = (("frames", video.num_frames, 1), ("patches", patches, 0), ("tokens", 0, 0))
    joint = (("frames", 0, 1), ("patches", 0, 0), ("tokens", video.num_frames * patches, 0))
    axes = list(joint if model.attention == "joint" else divided)
    if aggregation.reducer == "saliency":
        axes[0] = ("frames", 0, 1)  # saliency merges no frames

    # `keep` spreads one share over all axes that can merge.
    share = None
    if aggregation.keep is not None:
        # A single frame cannot merge in time: then space alone has to reach the share.
        merging = sum(held > 1 for _, held, _ in axes)
        if not merging:
            raise ValueError("aggregation.keep: one frame of one patch has nothing to merge")
        share = keep_per_axis(aggregation.keep, merging)

    schedules: dict[str, tuple[int, ...]] = {}
    for axis, held, protected in axes:
        if share is not None and held > 1:
            schedules[axis] = blocks_from_keep(share, held, protected, model.depth, "aggregation.keep")
        else:
            name, amount = f"aggregation.{axis}_per_block", getattr(aggregation, f"{axis}_per_block")
            if aggregation.reducer == "saliency":
                shares = blocks_from_tokens(amount, model.depth, name)
                check_capacity(shares, held, protected, name, axis)
                schedules[axis] = held_schedule(shares, held, protected)
                continue
            schedules[axis] = blocks_from_amount(amount, model.depth, name)
            check_capacity(schedules[axis], held, protected, name, axis)

    return schedules


def _run_length_schedules(
    model: TestaConfig, video: VideoConfig, aggregation: AggregationConfig
) -> dict[str, tuple[int, ...]]:
    """What merges inside the blocks after run-length tokens, with joint attention; nothing else leaves there."""
    if model.attention == "divided":
        refuse_inside(aggregation)
    patches, nothing = (video.image_size // model.patch_size) ** 2, (0,) * model.depth
    tokens = inside_schedule(aggregation, model.depth, video.num_frames, patches)
    if aggregation.train_keep is not None and any(isinstance(amount, float) for amount in tokens):
        raise ValueError(
            "aggregation.tokens_per_block: a share is another number at each budget that train_keep draws, and blocks "
            "here have one number each; give numbers of tokens, or leave train_keep out"
        )
    held = kept_of_share(aggregation.keep or 1.0, video.num_frames, patches)
    return {"frames": nothing, "patches": nothing, "tokens": held_schedule(tokens, held, 0)}


def as_testa(model: ModelConfig) -> TestaConfig:
    """A `model` section as TESTA's, for code that supports only TESTA; ValueError for another system."""
    if not isinstance(model, TestaConfig):
        raise ValueError(f"model.name: this is made for {TestaConfig.name} alone, not for {model.name}")
    return model
