"""Sections that describe a model of any system: its input, and a BERT tower.

`configs/schema.py` says how sections and their checks work. A system's own `model` section is in `configs/models/`.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from configs.sampling import EvalSampling, Interpolation, Sampling


def check_positive(section: str, settings: object, *names: str) -> None:
    """Refuse the named settings of a section if they are less than 1."""
    for name in names:
        if getattr(settings, name) < 1:
            raise ValueError(f"{section}.{name}: {getattr(settings, name)} is less than 1")


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig:
    """The part of `model.text` that all systems share: where the vocabulary comes from, and how long a text may be."""

    on_hub: ClassVar[bool] = True
    """Whether `tokenizer`, if it is no folder, names a repository of the hub."""

    tokenizer: str
    vocab_size: int
    max_positions: int


@dataclass(frozen=True, kw_only=True)
class TextConfig(TextTowerConfig):
    """The BERT towers. Defaults are bert-base-uncased with [DEC] and [ENC] added.

    `tokenizer` is a folder, a hub name, or `from_data`: a small WordPiece vocabulary of at most `vocab_size` entries,
    learned from the training captions and saved in every checkpoint.
    """

    tokenizer: str = "bert-base-uncased"
    vocab_size: int = 30524
    depth: int = 12
    width: int = 768
    heads: int = 12
    intermediate: int = 3072
    max_positions: int = 512
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_positive("model.text", self, "vocab_size", "depth", "width", "heads", "intermediate", "max_positions")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.text.dropout: {self.dropout} is not a share in [0, 1)")


WORKING_MEMORY = 4.0
"""GiB; more than any published setting takes, so that those are computed as a whole."""
TimeTable = Literal["nearest", "linear", "windows"]


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """How a video becomes the encoder's input: frames, pixels, and which frames.

    Frames are squashed to `image_size`. With `fit: crop` the shorter side is resized to `resize` pixels and the centre
    is cut out instead. `interpolation: ffmpeg` resizes bilinearly while decoding; the others are PIL's, and
    `bicubic_aliased` has no antialiasing.

    `augment` is drawn once a clip in training. `true` is TESTA's pre-training: squash to `resize` pixels, crop, apply
    two operations. `crop` cuts at a random place instead of the centre (TVTSv2). `resized_crop` squashes a crop of half
    to all of the area, and mirrors (UMT). `strong`, for few videos, squashes a crop of 35 % to all of the area,
    mirrors, and changes brightness and contrast.

    `working_memory` is what the steps of a block may hold of one video, in GiB, beside its tokens; an encoder with
    divided attention computes longer videos in chunks.

    `time_table` says how its table of time positions is stretched to other numbers of frames, when weights are loaded
    and when a clip is encoded (`models.parts.time_table`); `nearest` is the references' way.

    Pixels from 0 to 1 are normalised by `pixel_mean` and `pixel_std`, by default CLIP's and BLIP's.
    """

    num_frames: int = 32
    image_size: int = 224
    train_sampling: Sampling = "uniform"
    eval_sampling: EvalSampling = "uniform"
    fit: Literal["squash", "crop"] = "squash"
    interpolation: Interpolation = "ffmpeg"
    augment: bool | Literal["crop", "resized_crop", "strong"] = False
    resize: int = 256
    pixel_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    pixel_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    working_memory: float = WORKING_MEMORY
    time_table: TimeTable = "nearest"

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.image_size < 1:
            raise ValueError(f"video.num_frames: {self.num_frames} frames of {self.image_size} pixels make no clip")
        if min(self.pixel_std) <= 0:
            raise ValueError(f"video.pixel_std: {list(self.pixel_std)} must be above 0")
        if self.working_memory <= 0:
            raise ValueError(f"video.working_memory: {self.working_memory} GiB must be above 0")
        self._check_framing()

    def _check_framing(self) -> None:
        """Refuse impossible framing, and settings that have no effect on it."""
        resizes = self.augment is True or self.fit == "crop"
        if resizes and self.resize < self.image_size:
            raise ValueError(f"video.resize: {self.resize} is less than the crop, video.image_size {self.image_size}")
        if not resizes and self.resize != 256:
            raise ValueError("video.resize: has no effect unless video.augment is true or video.fit is crop")

        if self.augment is True and self.fit == "crop":
            raise ValueError("video.fit: crop does not go with video.augment true, which squashes; leave one of them")
        if self.augment == "crop" and self.fit != "crop":
            raise ValueError("video.augment: crop cuts what video.fit crop resizes; set video.fit=crop")

        # ffmpeg resizes while it decodes, so it cannot deliver the whole frame that a crop is cut from.
        if self.interpolation == "ffmpeg" and (self.fit == "crop" or self.augment in ("resized_crop", "strong")):
            key = "fit" if self.fit == "crop" else "augment"
            raise ValueError(
                f"video.{key}: {getattr(self, key)} needs whole frames, which video.interpolation ffmpeg does not "
                "make; set video.interpolation to bicubic or another"
            )


def refuse_long_video(video: VideoConfig, where: str) -> None:
    """Refuse the settings for long videos where an encoder has no divided attention, and so no use for them."""
    if video.working_memory != WORKING_MEMORY:
        raise ValueError(f"video.working_memory: has no effect {where}; leave it out")
    if video.time_table != "nearest":
        raise ValueError(f"video.time_table: {video.time_table} has no effect {where}; leave it out")
