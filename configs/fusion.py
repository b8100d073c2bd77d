"""The `objective` section of STOA-VLP's training, chosen by `objective.name: fusion`."""

from dataclasses import dataclass
from typing import Literal

from configs.training import PairObjectiveConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class FusionObjectiveConfig(PairObjectiveConfig):
    """Losses of an encoder that fuses clips and texts, each of weight 1 but for `align_weight`.

    Contrast (`vtc`), matching with hard negatives (`vtm`), masked words (`mlm`), writing from a random word on (`plm`),
    and objects and actions next to nouns and verbs (`align`). Frames and texts get a gradient from `vtc` alone, which
    is taken in the first `vtc_epochs` epochs; null is all of them. `reference_form` keeps the defects of the published
    code, with which its weights were trained: see docs/NUMERICS.md.

    In alignment the end of a text is a noun and a verb too. With `end_is_candidate: false` it is only in texts that
    have none: from nothing, objects otherwise learn the end, which every text has, and never a noun.
    """

    name: Literal["fusion"] = "fusion"
    losses: tuple[Literal["vtc", "vtm", "mlm", "plm", "align"], ...] = ("vtm", "mlm", "plm", "align")
    vtc_epochs: int | None = None
    reference_form: bool = False
    align_weight: float = 1.0
    end_is_candidate: bool = True

    def __post_init__(self) -> None:
        if not self.losses or len(set(self.losses)) != len(self.losses):
            raise ValueError(f"objective.losses: {list(self.losses)} must name each loss once, and at least one")
        if self.vtc_epochs is not None and "vtc" not in self.losses:
            raise ValueError("objective.vtc_epochs: has no effect without 'vtc' in objective.losses")
        if self.vtc_epochs is not None and self.vtc_epochs < 1:
            raise ValueError(f"objective.vtc_epochs: {self.vtc_epochs} is less than 1; leave 'vtc' out instead")
        if self.align_weight <= 0:
            raise ValueError(f"objective.align_weight: {self.align_weight} is not above 0; leave 'align' out instead")
        for name in ("align_weight", "end_is_candidate"):
            if "align" not in self.losses and getattr(self, name) != getattr(FusionObjectiveConfig, name):
                raise ValueError(f"objective.{name}: has no effect without 'align' in objective.losses")

    @property
    def teaches(self) -> frozenset[str]:
        """What a model can do once it is trained so; see `inference.trained.CAN_DO`."""
        abilities = {"vtc": {"encode_video", "encode_text"}, "vtm": {"match"}}
        return frozenset[str]().union(*(abilities.get(loss, set()) for loss in self.losses))

    @property
    def reads_tags(self) -> bool:
        """Alignment does."""
        return "align" in self.losses

    @property
    def matches_by_contrast(self) -> bool:
        """Embeddings start as CLIP's, which serve without contrast."""
        return False

    @property
    def lasting_losses(self) -> tuple[str, ...]:
        """The losses that are taken in every epoch."""
        return tuple(loss for loss in self.losses if loss != "vtc" or self.vtc_epochs is None)

    @property
    def matches_by_query(self) -> bool:
        """Whether the logits of a pair depend on the other pairs of a call."""
        return self.reference_form

    def check(self, train: TrainConfig) -> None:
        """Refuse batches and epochs that the losses cannot work with."""
        if "vtm" in self.losses and train.batch_size // train.accumulate < 2:
            raise ValueError(
                "train.batch_size: matching needs a second sample as negative; make it 2 or more, or leave out 'vtm'"
            )
        if self.vtc_epochs is not None and self.vtc_epochs >= train.max_epochs:
            raise ValueError(
                f"objective.vtc_epochs: {self.vtc_epochs} leaves no epoch of train.max_epochs {train.max_epochs} "
                "without 'vtc'; set it to null"
            )
        if not self.lasting_losses:
            raise ValueError("objective.vtc_epochs: leaves no loss afterwards; set it to null")
