"""The `model.text` section of systems whose text tower is CLIP's."""

from dataclasses import dataclass
from typing import ClassVar

from configs.model import TextTowerConfig, check_positive


@dataclass(frozen=True, kw_only=True)
class ClipTowerConfig(TextTowerConfig):
    """CLIP's text tower, by default the one of B/32 and B/16.

    `tokenizer` is OpenAI's vocabulary file, a folder with it, `open_clip_torch` for the package that ships it, or
    `from_data`: at most `vocab_size` tokens, learned from the training captions and saved in every checkpoint.
    """

    on_hub: ClassVar[bool] = False

    tokenizer: str = "open_clip_torch"
    vocab_size: int = 49408
    max_positions: int = 77
    depth: int = 12
    width: int = 512
    heads: int = 8

    def __post_init__(self) -> None:
        check_positive("model.text", self, "vocab_size", "max_positions", "depth", "width", "heads")
        if self.width % self.heads:
            raise ValueError(f"model.text.heads: {self.heads} does not divide model.text.width {self.width}")
