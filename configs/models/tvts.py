"""TVTSv2's `model` section: CLIP's towers, with attention over time added to the image tower."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from configs import divided
from configs.aggregation import AggregationConfig
from configs.model import VideoConfig, check_positive
from configs.models.base import ModelConfig
from configs.models.clip import ClipTowerConfig
from configs.reducers import Axis


@dataclass(frozen=True, kw_only=True)
class ClipTextConfig(ClipTowerConfig):
    """CLIP's text tower, of which only the last `trained_blocks` blocks are trained."""

    trained_blocks: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.trained_blocks <= self.depth:
            raise ValueError(
                f"model.text.trained_blocks: {self.trained_blocks} is not from 0 to the depth {self.depth}"
            )


@dataclass(frozen=True, kw_only=True)
class TvtsConfig(ModelConfig):
    """The video tower (B/16 by default), the text tower, and the sorting head of pre-training.

    `activation` is `quick_gelu` for OpenAI's weights, `gelu` for OpenCLIP's. With `raw_patches` patch tokens skip the
    last norm and the sorting head does not see the class token, as in H/14. `mask_ratio` is the share of patches hidden
    in pre-training, and in fine-tuning with `objective.hide_patches`, at the same places in every frame of a clip. With
    `motion`, which is ours, patches also see their difference to the next frame; from published weights that starts
    without effect.

    `temporal_std` is that of a fresh temporal embedding, by default width^-0.5; from scratch, sorting is learned sooner
    with more. `time_init` says what is 0 in fresh attention over time, so that it adds nothing: queries, keys and
    values, as the reference has them, whose queries and keys then never learn; or, which is ours, the projection.
    """

    name: Literal["tvts"] = "tvts"
    depth: int = 12
    width: int = 768
    heads: int = 12
    patch_size: int = 16
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    raw_patches: bool = False
    mask_ratio: float = 0.5
    sort_heads: int = 8
    num_transcripts: int = 4
    temporal_std: float | None = None
    time_init: Literal["zero_qkv", "zero_proj"] = "zero_qkv"
    motion: bool = False
    embed_dim: int = 512
    text: ClipTextConfig = field(default_factory=ClipTextConfig)

    def __post_init__(self) -> None:
        sizes = ("depth", "width", "heads", "patch_size", "embed_dim", "sort_heads")
        check_positive("model", self, *sizes)
        if self.width % self.heads:
            raise ValueError(f"model.heads: {self.heads} does not divide model.width {self.width}")
        if self.embed_dim % self.sort_heads:
            raise ValueError(f"model.sort_heads: {self.sort_heads} does not divide model.embed_dim {self.embed_dim}")
        if self.num_transcripts < 2:
            raise ValueError(f"model.num_transcripts: {self.num_transcripts} leaves nothing to sort; give 2 or more")
        if self.temporal_std is not None and self.temporal_std <= 0:
            raise ValueError(f"model.temporal_std: {self.temporal_std} is not above 0; null is width^-0.5")
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"model.mask_ratio: {self.mask_ratio} is not a share in [0, 1)")

    def check(self, video: VideoConfig, aggregation: AggregationConfig) -> None:
        """Refuse patches that do not tile, a reducer for joint attention, and amounts that an axis cannot hold."""
        self._check_size("video.image_size:", video.image_size)
        if aggregation.weighted_pooling:
            raise ValueError("aggregation.weighted_pooling: has no effect here: the embedding is the class token's")
        if aggregation.merge_weight != "size":
            raise ValueError("aggregation.merge_weight: this attention tells keys or sharpness, not both; leave it out")
        divided.divided_schedules(aggregation, self.depth, video.num_frames, (video.image_size // self.patch_size) ** 2)

    @property
    def hides_patches(self) -> bool:
        """Whether `mask_ratio` hides any."""
        return self.mask_ratio > 0

    @property
    def reducers(self) -> Mapping[str, tuple[Axis, ...]]:
        """The reducers that the tower can do, and the axes that each can shorten."""
        return divided.REDUCERS

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
        return divided.at_price(aggregation, axes, amount, video.num_frames, patches, self.depth, blocks)

    def check_clip(self, num_frames: int, image_size: int, video: VideoConfig) -> None:
        """Refuse images that patches do not tile; any number of frames fits."""
        self._check_size("image_size", image_size)

    def _check_size(self, setting: str, image_size: int) -> None:
        if image_size % self.patch_size:
            raise ValueError(f"{setting} {image_size} is no multiple of model.patch_size {self.patch_size}")
