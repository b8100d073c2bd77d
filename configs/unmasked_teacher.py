"""The `objective` section of UMT's training (ICCV 2023), chosen by `objective.name: unmasked_teacher`."""

from dataclasses import dataclass, field, fields
from typing import Literal

from configs.training import PairObjectiveConfig, TrainConfig

LOSSES = ("vtc", "vtm", "mlm", "uta")
NEEDED_BY = {"same_captions": "vtc", "negatives": "vtm", "word_ratio": "mlm", "teacher": "uta"}
"""The settings that a single loss uses."""


@dataclass(frozen=True, kw_only=True)
class LossWeightsConfig:
    """What each loss is multiplied by; logs show the product."""

    vtc: float = 1.0
    vtm: float = 1.0
    mlm: float = 1.0
    uta: float = 1.0

    def __post_init__(self) -> None:
        for name in LOSSES:
            if getattr(self, name) <= 0:
                raise ValueError(
                    f"objective.weights.{name}: {getattr(self, name)} is not above 0; leave {name!r} out of "
                    "objective.losses instead"
                )


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """The frozen CLIP image tower that `uta` learns from; it is in no checkpoint.

    `weights` is a file or folder of OpenAI's, OpenCLIP's or transformers' CLIP. The tower sees frames of `image_size`
    pixels, which its patches of `patch_size` must cut into the same grid as the model's. Each of its last `blocks`
    teaches one of the model's, by features of `width`, the tower's `embed_dim`. The share `mask_ratio` of a video
    frame's patches is hidden from the model, and `image_mask_ratio` of an image's.
    """

    weights: str | None = None
    image_size: int = 224
    patch_size: int = 16
    width: int = 512
    blocks: int = 6
    mask_ratio: float = 0.8
    image_mask_ratio: float = 0.5

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "width", "blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"objective.teacher.{name}: {getattr(self, name)} is less than 1")
        for name in ("mask_ratio", "image_mask_ratio"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"objective.teacher.{name}: {getattr(self, name)} is not a share in [0, 1)")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"objective.teacher.image_size: {self.image_size} is no multiple of objective.teacher.patch_size "
                f"{self.patch_size}"
            )

    @property
    def grid(self) -> int:
        """Patches along each side of a frame."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, kw_only=True)
class UnmaskedTeacherConfig(PairObjectiveConfig):
    """Contrast (`vtc`), matching (`vtm`), masked words (`mlm`) and a teacher's features (`uta`).

    Contrast and hard negatives take the features of the batch itself, with gradient on both sides; there is neither
    twin nor queue. Texts of one video are no negatives of each other in fine-tuning; with `same_captions: together`
    neither are videos with the same caption (Something-Something V2). `negatives: same_rank` is the reference's;
    results then depend on the number of processes. `word_ratio` is the share of words to guess.
    """

    name: Literal["unmasked_teacher"] = "unmasked_teacher"
    losses: tuple[Literal["vtc", "vtm", "mlm", "uta"], ...] = ("vtc", "vtm")
    weights: LossWeightsConfig = field(default_factory=LossWeightsConfig)
    temperature: float = 0.07
    same_captions: Literal["apart", "together"] = "apart"
    negatives: Literal["all", "same_rank"] = "all"
    word_ratio: float = 0.5
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def __post_init__(self) -> None:
        if not self.losses or len(set(self.losses)) != len(self.losses):
            raise ValueError(f"objective.losses: {list(self.losses)} must name each loss once, and at least one")
        if "vtm" in self.losses and "vtc" not in self.losses:
            raise ValueError("objective.losses: 'vtm' draws its negatives by the similarities of 'vtc'; add that")
        if self.temperature <= 0:
            raise ValueError(f"objective.temperature: {self.temperature} is not above 0")
        if not 0 < self.word_ratio < 1:
            raise ValueError(f"objective.word_ratio: {self.word_ratio} is not a share in (0, 1)")

        self._refuse_what_no_loss_uses()
        if "uta" in self.losses and self.teacher.weights is None:
            raise ValueError("objective.teacher.weights: 'uta' learns from a CLIP image tower; name its file")

    @staticmethod
    def inherited(lower: dict, higher: dict) -> dict:
        """The settings of a lower layer that survive a higher layer: none that only a loss left out there uses."""
        if "losses" not in higher:
            return lower
        kept = {name: value for name, value in lower.items() if NEEDED_BY.get(name) in (None, *higher["losses"])}
        if "weights" in kept:
            kept["weights"] = {name: value for name, value in kept["weights"].items() if name in higher["losses"]}
        return kept

    def _refuse_what_no_loss_uses(self) -> None:
        for name, loss in NEEDED_BY.items():
            if name == "teacher":
                continue
            if loss not in self.losses and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"objective.{name}: has no effect without {loss!r} in objective.losses")
        for item in fields(TeacherConfig):
            if "uta" not in self.losses and getattr(self.teacher, item.name) != item.default:
                raise ValueError(f"objective.teacher.{item.name}: has no effect without 'uta' in objective.losses")
        for name in LOSSES:
            if name not in self.losses and getattr(self.weights, name) != 1:
                raise ValueError(f"objective.weights.{name}: has no effect without {name!r} in objective.losses")

    @property
    def teaches(self) -> frozenset[str]:
        """What a model can do once it is trained so; see `inference.trained.CAN_DO`."""
        abilities = {"vtc": {"encode_video", "encode_text"}, "vtm": {"match"}}
        return frozenset[str]().union(*(abilities.get(loss, set()) for loss in self.losses))

    def check(self, train: TrainConfig) -> None:
        """Refuse batches that the losses cannot work with."""
        if "vtm" in self.losses and train.batch_size // train.accumulate < 2:
            raise ValueError(
                "train.batch_size: matching needs a second sample as negative; make it 2 or more, or leave out 'vtm'"
            )
