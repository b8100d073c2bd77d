"""The sections of action recognition: how videos are classified, and how a classifier is trained."""

from dataclasses import dataclass
from typing import Literal

RECOGNITION_DATASETS = ("labelled", "hmdb51", "ucf101", "kinetics400", "ssv2")
"""Datasets of classified videos; `labelled` is a folder of your own."""
OPTION_DATASETS = ("ssv2_mc",)
"""Datasets whose videos have options of their own in place of classes."""
PROMPTS = ("a person {}",)
"""TVTSv2's only template."""


@dataclass(frozen=True, kw_only=True)
class RecognitionEvaluationConfig:
    """Evaluation of recognition: a head's logits, or the cosine of videos and prompts.

    `classify: auto` uses the checkpoint's head, or prompts if it has none. `prompts` are templates with `{}` for the
    class; several are averaged. `prompt_file` takes them from CLIP's published Markdown instead, as `FILE#SECTION`.
    Names stand in prompts as the dataset writes them unless `class_words`, a file below `data.root`, has words for each
    class: JSON of {class: words}, or a line a class. Options of a video's own are texts already: they take neither.

    `windows` above 1 shows each video by up to so many clips, whose frames begin at equal distances within the
    intervals of `video.eval_sampling: interval_middle`; `mirror` shows each clip mirrored too. Probabilities are
    averaged.
    """

    batch_size: int = 8
    windows: int = 1
    mirror: bool = False
    classify: Literal["auto", "head", "prompts"] = "auto"
    prompts: tuple[str, ...] = PROMPTS
    prompt_file: str | None = None
    class_words: str | None = None
    best_metric: Literal["top1", "top5", "mean_per_class"] = "top1"

    def __post_init__(self) -> None:
        for name in ("batch_size", "windows"):
            if getattr(self, name) < 1:
                raise ValueError(f"evaluation.{name}: {getattr(self, name)} is less than 1")
        if not self.prompts:
            raise ValueError("evaluation.prompts: none is given; write at least one, such as 'a person {}'")

        if self.prompt_file is not None:
            if "#" not in self.prompt_file:
                raise ValueError(
                    f"evaluation.prompt_file: {self.prompt_file} names no section; write FILE#SECTION, such as "
                    "prompts.md#UCF101"
                )
            if self.prompts != PROMPTS:
                raise ValueError("evaluation.prompts: has no effect with evaluation.prompt_file; remove one of them")

        if self.classify == "head":
            for name in ("prompts", "prompt_file", "class_words"):
                if getattr(self, name) != getattr(type(self), name):
                    raise ValueError(f"evaluation.{name}: has no effect with evaluation.classify head")


@dataclass(frozen=True, kw_only=True)
class ClassObjectiveConfig:
    """Fine-tuning with a linear head on the video embedding: cross-entropy over the classes of the training set.

    `dropout` drops entries of the embedding before the head. With `hide_patches` training shows all but
    `model.mask_ratio` of the patches, drawn for each clip and the same in every frame; evaluation shows all.
    """

    name: Literal["classes"] = "classes"
    label_smoothing: float = 0.0
    dropout: float = 0.0
    hide_patches: bool = False

    def __post_init__(self) -> None:
        for name in ("label_smoothing", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"objective.{name}: {getattr(self, name)} is not in [0, 1)")

    @property
    def teaches(self) -> frozenset[str]:
        """What a model can do once it is trained so; see `inference.trained.CAN_DO`."""
        return frozenset({"encode_video", "encode_text"})


SGD_SETTINGS = ("epochs", "batch_size", "lr", "weight_decay", "warmup_epochs")


@dataclass(frozen=True, kw_only=True)
class ProbeObjectiveConfig:
    """A linear probe: a classifier on the embeddings of a frozen model, which are computed once and kept on disk.

    `ridge` is solved in closed form; `penalty` null chooses one by cross-validation that holds out whole groups. `sgd`
    is softmax regression by SGD with momentum, warm-up and cosine; `lr` is for batches of 256.
    """

    name: Literal["probe"] = "probe"
    solver: Literal["ridge", "sgd"] = "ridge"
    penalty: float | None = None
    epochs: int = 100
    batch_size: int = 256
    lr: float = 0.1
    weight_decay: float = 1e-9
    warmup_epochs: int = 10

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("warmup_epochs", 0), ("weight_decay", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"objective.{name}: {getattr(self, name)} is less than {least}")
        if self.lr <= 0:
            raise ValueError(f"objective.lr: {self.lr} is not above 0")
        if self.penalty is not None and self.penalty <= 0:
            raise ValueError(f"objective.penalty: {self.penalty} is not above 0; null chooses it by cross-validation")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"objective.warmup_epochs: {self.warmup_epochs} leave nothing of {self.epochs} epochs")
        for name in SGD_SETTINGS if self.solver == "ridge" else ("penalty",):
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"objective.{name}: has no effect with objective.solver {self.solver}")

    @property
    def teaches(self) -> frozenset[str]:
        """What a model can do once it is trained so; see `inference.trained.CAN_DO`."""
        return frozenset({"encode_video", "encode_text"})
