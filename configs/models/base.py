"""The base class of every system's `model` section."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.aggregation import AggregationConfig
from configs.model import TextTowerConfig, VideoConfig
from configs.reducers import Axis


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The base of all `model` sections.

    Attributes:
        name: the system, a key in `configs.schema.MODELS` and `models.systems.SYSTEMS`.
        embed_dim: the width of the space that videos and texts share.
        text: the text towers.
    """

    name: str
    embed_dim: int
    text: TextTowerConfig

    def check(self, video: VideoConfig, aggregation: AggregationConfig) -> None:
        """Refuse an input or a reducer that the model cannot take, by a ValueError that begins with the dotted key."""
        raise NotImplementedError

    @property
    def reducers(self) -> Mapping[str, tuple[Axis, ...]]:
        """The reducers that the encoder can do, and the axes that each can shorten: none, unless a system says more."""
        return {"none": ()}

    def at_price(
        self,
        aggregation: AggregationConfig,
        video: VideoConfig,
        axes: Sequence[Axis],
        amount: int,
        blocks: int | None = None,
    ) -> AggregationConfig:
        """The reducer with a schedule over `axes` that costs less the higher `amount` is; 0 takes nothing away.

        The schedule is the same in every block, or in the first `blocks` alone. `check` refuses one that takes more
        than there is.
        """
        raise NotImplementedError

    def check_clip(self, num_frames: int, image_size: int, video: VideoConfig) -> None:
        """Refuse clip sizes that differ from `video` and do not fit; the ValueError names what does not fit."""
        raise NotImplementedError

    @property
    def most_tokens(self) -> int:
        """The most tokens of a text that the model takes, with those of its start and end."""
        return self.text.max_positions

    @property
    def hides_patches(self) -> bool:
        """Whether the video tower can be shown some of a clip's patches alone, and a setting says how many."""
        return False

    @property
    def matches_some_tokens(self) -> bool:
        """Whether a text can be matched with some tokens of a video alone, chosen for it."""
        return False

    @property
    def reads_objects(self) -> bool:
        """Whether clips are encoded with the objects on them."""
        return self.boxes_per_frame is not None

    @property
    def boxes_per_frame(self) -> int | None:
        """The most objects of a frame that the model reads; None if it reads none."""
        return None
