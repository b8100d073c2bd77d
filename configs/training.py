"""The sections for training: the loop and the losses. The optimizer section is in `configs/optim.py`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training loop.

    `batch_size` counts one optimizer step over all processes; `accumulate` cuts it into that many forward passes.
    `precision: auto` is bf16 on GPUs from sm_80 on, fp16 with loss scaling on older ones, fp32 on CPUs. `eval_every` is
    in epochs, `save_every` and `log_every` in steps. Every epoch ends with a checkpoint; the last `keep_checkpoints`
    are kept.

    A video that `workers` cannot read within `sample_timeout` seconds counts as unreadable. The run ends if a process
    makes no progress for `stall_timeout` seconds. Steps with a loss or gradient that is not finite are skipped; more
    than `max_skipped` in a row end the run.
    """

    batch_size: int
    max_epochs: int
    accumulate: int = 1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    activation_checkpointing: Literal["none", "recompute", "offload"] = "none"
    compile: bool = False
    deterministic: bool = False
    workers: int = 4
    eval_every: int = 1
    save_every: int | None = None
    log_every: int = 10
    keep_checkpoints: int = 2
    sample_timeout: float = 120.0
    stall_timeout: float = 1800.0
    max_skipped: int = 20

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_epochs", "accumulate", "eval_every", "log_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name}: {getattr(self, name)} is less than 1")

        if self.save_every is not None and self.save_every < 1:
            raise ValueError(f"train.save_every: {self.save_every} is less than 1; null saves after every epoch only")
        if self.workers < 0:
            raise ValueError(f"train.workers: {self.workers} is negative; 0 reads in the main process")
        for name in ("sample_timeout", "stall_timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"train.{name}: {getattr(self, name)} seconds leave no time to read anything")
        if self.max_skipped < 0:
            raise ValueError(f"train.max_skipped: {self.max_skipped} is negative; 0 leaves out no step")

        if self.batch_size % self.accumulate:
            raise ValueError(f"train.accumulate: {self.accumulate} does not divide train.batch_size {self.batch_size}")
        if self.compile and self.activation_checkpointing == "offload":
            raise ValueError(
                "train.compile: offloaded checkpoints cannot be traced; use activation_checkpointing: recompute"
            )


def _check_label_smoothing(value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"objective.label_smoothing: {value} is not in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class PairObjectiveConfig:
    """The base of all `objective` sections that train on pairs of videos and texts.

    Attributes:
        name: the key in `configs.schema.PAIR_OBJECTIVES` and `tasks.objectives.table.OBJECTIVES`.
        losses: the names of the losses; a data source may choose some of them.
    """

    name: str
    losses: tuple[str, ...]

    @property
    def teaches(self) -> frozenset[str]:
        """What a model can do once it is trained so; see `inference.trained.CAN_DO`."""
        raise NotImplementedError

    @property
    def sorts(self) -> bool:
        """Whether transcripts are sorted, for which a source of speech is needed."""
        return "sorting" in self.losses

    @property
    def takes_transcripts(self) -> bool:
        """Whether a clip may have several texts, those of its segments."""
        return False

    @property
    def reads_tags(self) -> bool:
        """Whether some loss reads which tokens of texts are nouns and verbs."""
        return False

    @property
    def matches_by_contrast(self) -> bool:
        """Whether matching draws its negatives by what contrast trains."""
        return True

    @property
    def lasting_losses(self) -> tuple[str, ...]:
        """The losses that are taken in every epoch."""
        return self.losses

    @property
    def matches_by_query(self) -> bool:
        """Whether the logits of a pair depend on the other pairs of a call, so that a rule has to ask by query."""
        return False

    def check(self, train: TrainConfig) -> None:
        """Refuse settings that the losses cannot work with, by a ValueError that begins with the dotted key."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(PairObjectiveConfig):
    """Contrastive (`vtc`), matching (`vtm`) and captioning (`cap`) losses, each of weight 1.

    `momentum` is the twin's, `alpha` the share of its soft targets after a ramp of `alpha_ramp_epochs`. With momentum 0
    there is no twin: the features of the batch itself, without gradient, are the contrastive keys.
    `vtc_keys: local` and `negatives: same_rank` are the reference's; results then depend on the number of processes.
    """

    name: Literal["momentum"] = "momentum"
    losses: tuple[Literal["vtc", "vtm", "cap"], ...]
    queue_size: int
    alpha: float = 0.4
    alpha_ramp_epochs: float = 1.0
    momentum: float = 0.995
    temperature: float = 0.07
    label_smoothing: float = 0.1
    vtc_keys: Literal["all", "local"] = "all"
    negatives: Literal["all", "same_rank"] = "all"

    def __post_init__(self) -> None:
        if not self.losses or len(set(self.losses)) != len(self.losses):
            raise ValueError(f"objective.losses: {list(self.losses)} must name each loss once, and at least one")
        if self.queue_size < 0:
            raise ValueError(f"objective.queue_size: {self.queue_size} is negative; 0 is no queue")

        if not 0 <= self.momentum < 1:
            raise ValueError(f"objective.momentum: {self.momentum} is not in [0, 1); 0 is no twin")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"objective.alpha: {self.alpha} is no share, from 0 to 1")
        if self.alpha_ramp_epochs < 0:
            raise ValueError(f"objective.alpha_ramp_epochs: {self.alpha_ramp_epochs} is negative; 0 is no ramp")
        if self.temperature <= 0:
            raise ValueError(f"objective.temperature: {self.temperature} is not above 0")
        _check_label_smoothing(self.label_smoothing)

    @property
    def teaches(self) -> frozenset[str]:
        """What a model can do once it is trained so; see `inference.trained.CAN_DO`."""
        abilities = {"vtc": {"encode_video", "encode_text"}, "vtm": {"match"}, "cap": {"caption"}}
        return frozenset[str]().union(*(abilities[loss] for loss in self.losses))

    def check(self, train: TrainConfig) -> None:
        """Refuse batches and settings that the losses cannot work with."""
        if "vtm" in self.losses and train.batch_size // train.accumulate < 2:
            raise ValueError(
                "train.batch_size: matching needs a second sample as negative; make it 2 or more, or leave out 'vtm'"
            )
        needed = {"alpha": "vtc", "momentum": "vtc", "vtc_keys": "vtc", "negatives": "vtm", "label_smoothing": "cap"}
        for name, loss in needed.items():
            if loss not in self.losses and getattr(self, name) != getattr(ObjectiveConfig, name):
                raise ValueError(f"objective.{name}: has no effect without {loss!r} in objective.losses")
        if "vtm" in self.losses and "vtc" not in self.losses:
            raise ValueError("objective.losses: 'vtm' draws its negatives by the similarities of 'vtc'; add that")


@dataclass(frozen=True, kw_only=True)
class SortingObjectiveConfig(PairObjectiveConfig):
    """TVTSv2's pre-training: `contrastive`, of weight 1, and `sorting` of transcripts, of weight `sort_weight`.

    Contrast is with the clips of all processes. `gather: own_gradient` and `idle_head: moves` are the reference's: the
    contrastive gradient of W processes is then 1 / W of the true one, and in steps that do not sort the sorting head
    still moves by momentum and decay.
    """

    name: Literal["sorting"] = "sorting"
    losses: tuple[Literal["contrastive", "sorting"], ...] = ("contrastive", "sorting")
    temperature: float = 0.05
    sort_weight: float = 2.0
    gather: Literal["whole_gradient", "own_gradient"] = "whole_gradient"
    idle_head: Literal["rests", "moves"] = "rests"

    def __post_init__(self) -> None:
        if not self.losses or len(set(self.losses)) != len(self.losses):
            raise ValueError(f"objective.losses: {list(self.losses)} must name each loss once, and at least one")
        for name in ("temperature", "sort_weight"):
            if getattr(self, name) <= 0:
                raise ValueError(f"objective.{name}: {getattr(self, name)} is not above 0")

        needed = {
            "temperature": "contrastive",
            "gather": "contrastive",
            "sort_weight": "sorting",
            "idle_head": "sorting",
        }
        for name, loss in needed.items():
            if loss not in self.losses and getattr(self, name) != getattr(SortingObjectiveConfig, name):
                raise ValueError(f"objective.{name}: has no effect without {loss!r} in objective.losses")

    @property
    def teaches(self) -> frozenset[str]:
        """What a model can do once it is trained so; see `inference.trained.CAN_DO`."""
        return frozenset({"encode_video", "encode_text"} if "contrastive" in self.losses else ())

    @property
    def takes_transcripts(self) -> bool:
        """A clip may have several texts."""
        return True

    def check(self, train: TrainConfig) -> None:
        """Refuse micro-batches with nothing to contrast with."""
        if "contrastive" in self.losses and train.batch_size // train.accumulate < 2:
            raise ValueError("train.batch_size: contrast needs a second clip in each micro-batch; make it 2 or more")


@dataclass(frozen=True, kw_only=True)
class TextObjectiveConfig:
    """Fine-tuning that trains a decoder to write a text: its cross-entropy."""

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        _check_label_smoothing(self.label_smoothing)


@dataclass(frozen=True, kw_only=True)
class DecoderObjectiveConfig(TextObjectiveConfig):
    """The cross-entropy of captions, with `contrast` also the contrastive loss of captions and videos, of weight 1."""

    contrast: bool = False
    name: Literal["captions"] = "captions"

    @property
    def teaches(self) -> frozenset[str]:
        """What a model can do once it is trained so; see `inference.trained.CAN_DO`."""
        return frozenset({"caption", "encode_video", "encode_text"} if self.contrast else {"caption"})


@dataclass(frozen=True, kw_only=True)
class AnsweringObjectiveConfig(TextObjectiveConfig):
    """The cross-entropy of answers.

    With `questions: one` a sample is a question with its video, as in the reference. With `all` a sample is a video,
    encoded once for all of its questions; `train.batch_size` then counts videos. An answer weighs as many annotators
    as gave it, of five; with `weights: shares` those of a question weigh 1 together.
    """

    name: Literal["answers"] = "answers"
    questions: Literal["one", "all"] = "one"
    weights: Literal["annotators", "shares"] = "annotators"

    @property
    def teaches(self) -> frozenset[str]:
        """What a model can do once it is trained so; see `inference.trained.CAN_DO`."""
        return frozenset({"answer"})
