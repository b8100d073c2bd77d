"""What every system's `model` section has."""

from dataclasses import dataclass

from configs.model import AggregationConfig, TextTowerConfig, VideoConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The base of all `model` sections.

    Attributes:
        name: the system, by which `configs.schema.MODELS` and `models.systems.SYSTEMS` find its parts.
        embed_dim: width of the space that videos and texts share.
        text: the text towers.
    """

    name: str
    embed_dim: int
    text: TextTowerConfig

    def check(self, video: VideoConfig, aggregation: AggregationConfig) -> None:
        """Refuse an input or a reducer that the model cannot take: ValueError that begins with the dotted key."""
        raise NotImplementedError

    def check_clip(self, num_frames: int, image_size: int, video: VideoConfig) -> None:
        """Refuse clips of other sizes than `video` says: ValueError that names what does not fit."""
        raise NotImplementedError
