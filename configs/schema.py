"""The typed sections of every configuration file: one frozen dataclass a section, one a task.

`configs/load.py` reads the YAML that fills them. A check of one section is in that section's `__post_init__`; a check
of several sections is in the task's. A check raises a `ValueError` that begins with the dotted key, so that the loader
can add the file it came from.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

# Some are only re-exported, so that importers need not know which file holds a section.
from configs.aggregation import AggregationConfig
from configs.budgets import check_budgets
from configs.data import (
    CHOICE_DATASETS,
    QUESTION_DATASETS,
    DataConfig,
    SourceConfig as SourceConfig,
    SpeechConfig as SpeechConfig,
)
from configs.data_checks import (
    check_views,
    check_windows,
    refuse_labels,
    refuse_other_than_pairs,
    refuse_sources,
    refuse_unexpanded,
)
from configs.evaluation import (
    AnsweringConfig,
    CaptioningConfig,
    ChoosingConfig,
    EvaluationConfig,
    SortingEvaluationConfig,
)
from configs.fusion import FusionObjectiveConfig
from configs.model import TextConfig as TextConfig, VideoConfig
from configs.models.base import ModelConfig
from configs.models.stoa import StoaConfig
from configs.models.testa import TestaConfig
from configs.models.tvts import TvtsConfig
from configs.models.umt import UMTConfig
from configs.objects import check_objects, check_tags
from configs.optim import OptimConfig, ParameterGroupConfig as ParameterGroupConfig, check_milestones
from configs.recognition import (
    OPTION_DATASETS,
    RECOGNITION_DATASETS,
    ClassObjectiveConfig,
    ProbeObjectiveConfig,
    RecognitionEvaluationConfig,
)
from configs.sections import chosen_by_name
from configs.training import (
    AnsweringObjectiveConfig,
    DecoderObjectiveConfig,
    ObjectiveConfig,
    PairObjectiveConfig,
    SortingObjectiveConfig,
    TrainConfig,
)
from configs.unmasked_teacher import UnmaskedTeacherConfig

MODELS: dict[str, type[ModelConfig]] = {"testa": TestaConfig, "umt": UMTConfig, "tvts": TvtsConfig, "stoa": StoaConfig}
"""The `model` section of each system, by `model.name`."""
PAIR_OBJECTIVES: dict[str, type[PairObjectiveConfig]] = {
    "momentum": ObjectiveConfig,
    "unmasked_teacher": UnmaskedTeacherConfig,
    "fusion": FusionObjectiveConfig,
    "sorting": SortingObjectiveConfig,
}
ANSWER_OBJECTIVES: dict[str, type] = {"answers": AnsweringObjectiveConfig}
CAPTION_OBJECTIVES: dict[str, type] = {"captions": DecoderObjectiveConfig}
CLASS_OBJECTIVES: dict[str, type] = {"classes": ClassObjectiveConfig, "probe": ProbeObjectiveConfig}
"""The `objective` section of each way to train, by `objective.name`; `tasks.objectives.table` computes them."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every task shares. `checkpoint` is a file or folder the weights start from, or the one to evaluate."""

    reads_questions: ClassVar[bool] = False
    """Whether the task reads questions and answers, not captions."""
    reads_labels: ClassVar[bool] = False
    """Whether the task reads the classes of videos, not captions."""
    reads_options: ClassVar[bool] = False
    """Whether the task is evaluated on options of each video."""
    positives: ClassVar[Literal["row", "index"]] = "index"
    """The positives of the contrastive loss: each row's own pair, or all pairs of one video."""

    task: str

    data: DataConfig
    optim: OptimConfig
    train: TrainConfig
    model: ModelConfig = chosen_by_name(MODELS, TestaConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    checkpoint: str | None = None
    output_dir: str | None = None
    seed: int = 42
    wandb_project: str | None = None

    @property
    def is_evaluated(self) -> bool:
        """Whether training chooses its best weights by an evaluation."""
        return True

    @property
    def reads_tags(self) -> bool:
        """Whether some of the task's losses read which tokens are nouns and verbs."""
        return False

    @property
    def trains_in_steps(self) -> bool:
        """Whether training takes optimizer steps; otherwise the task fits its weights in one call."""
        return True

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: {self.seed} is not from 0 to 2^32 - 1")

        refuse_unexpanded({"checkpoint": self.checkpoint, "output_dir": self.output_dir}, self.data)
        check_tags(self.data, self.task, self.reads_tags)
        self.model.check(self.video, self.aggregation)
        check_objects(self.data, self.video, self.model)
        check_milestones(self.optim, self.train.max_epochs)
        check_budgets(self.aggregation, self.video, self.train, self.trains_in_steps)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Pre-training: contrast, matching and captioning together, or contrast and the sorting of transcripts."""

    positives: ClassVar[Literal["row", "index"]] = "row"

    task: Literal["pretrain"] = "pretrain"
    objective: PairObjectiveConfig = chosen_by_name(
        PAIR_OBJECTIVES,
        lambda: ObjectiveConfig(losses=("vtc", "vtm", "cap"), queue_size=57600, alpha_ramp_epochs=2.0),
    )
    evaluation: SortingEvaluationConfig = field(default_factory=SortingEvaluationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.objective.check(self.train)
        if self.data.dataset in QUESTION_DATASETS:
            raise ValueError(f"data.dataset: {self.data.dataset} has questions, not captions, to pre-train on")
        refuse_labels(self.data)
        if self.data.first_seconds is not None:
            raise ValueError("data.first_seconds: has no effect on pre-training, whose rows say start and end")

        if self.objective.sorts and not self.data.reads_speech:
            raise ValueError(
                "objective.losses: 'sorting' needs transcripts; add a source of kind speech to data.sources"
            )
        if self.data.reads_speech and not self.objective.takes_transcripts:
            raise ValueError(
                f"data.sources: objective.name {self.objective.name} cannot train on a source of kind speech, each of "
                "whose clips has several texts; set objective.name=sorting"
            )

        if self.objective.sorts:
            self._check_sorting_evaluation()
        elif self.data.eval_manifest or self.data.eval_split or self.data.test_is_apart:
            raise ValueError("data: pre-training is not evaluated; leave out the evaluation and test sets")
        if not self.is_evaluated and self.evaluation != type(self.evaluation)():
            raise ValueError("evaluation: has no effect on pre-training without data.eval_manifest, speech to sort")

    @property
    def reads_tags(self) -> bool:
        """Whether the objective reads which tokens are nouns and verbs."""
        return self.objective.reads_tags

    @property
    def is_evaluated(self) -> bool:
        """Whether held-out transcripts are sorted, which chooses the best weights."""
        return self.data.eval_manifest is not None

    def _check_sorting_evaluation(self) -> None:
        """Refuse a test set alone, and segments that cannot be permuted."""
        if self.data.test_manifest and not self.data.eval_manifest:
            raise ValueError("data.test_manifest: give data.eval_manifest too, which chooses the best weights")
        if self.evaluation.segments == "permuted" and self.data.speech.frames != "each_clip":
            raise ValueError("evaluation.segments: permuted takes data.speech.frames each_clip, equally many of each")


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(RunConfig):
    """Text-to-video retrieval: fine-tuning with contrast and matching, evaluation with reranking."""

    task: Literal["retrieval"] = "retrieval"
    objective: PairObjectiveConfig = chosen_by_name(
        PAIR_OBJECTIVES, lambda: ObjectiveConfig(losses=("vtc", "vtm"), queue_size=32)
    )
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.objective.check(self.train)
        refuse_other_than_pairs(self.data)

        if self.objective.reads_tags:
            raise ValueError("objective.losses: 'align' is for pre-training alone; leave it out")
        if "caption" in self.objective.teaches:
            raise ValueError("objective.losses: retrieval has no decoder to caption with; leave 'cap' to pre-training")
        if "match" not in self.objective.teaches and self.evaluation.rerank:
            raise ValueError(
                f"evaluation.rerank: matching is not trained by the losses of objective {self.objective.name}, "
                f"{', '.join(self.objective.losses)}; set it to 0"
            )
        self.evaluation.check_rule(self.objective.name, self.objective.matches_by_query)
        if self.evaluation.rerank_tokens < 1 and not self.model.matches_some_tokens:
            raise ValueError(
                f"evaluation.rerank_tokens: {self.model.name} matches a text with a whole video; leave it out"
            )
        if self.evaluation.windows > 1 and self.data.objects is not None:
            raise ValueError("evaluation.windows: boxes are of the frames of one clip; set it to 1 with data.objects")
        if self.evaluation.windows > 1:
            check_windows(self.video)


@dataclass(frozen=True, kw_only=True)
class VqaConfig(RunConfig):
    """Question answering: an encoder reads the question against the video, a decoder writes or ranks the answer."""

    reads_questions: ClassVar[bool] = True

    task: Literal["vqa"] = "vqa"
    objective: AnsweringObjectiveConfig = chosen_by_name(ANSWER_OBJECTIVES, AnsweringObjectiveConfig)
    evaluation: AnsweringConfig = field(default_factory=AnsweringConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_sources(self.data)
        refuse_labels(self.data)
        if self.data.dataset not in ("manifest", *QUESTION_DATASETS):
            raise ValueError(f"data.dataset: {self.data.dataset} has captions, not questions; use train_retrieval.py")
        for name in ("clean_captions", "max_words"):
            if getattr(self.data, name) != getattr(DataConfig, name):
                raise ValueError(f"data.{name}: has no effect on questions")


@dataclass(frozen=True, kw_only=True)
class CaptionConfig(RunConfig):
    """Captioning: a decoder over the video's tokens."""

    task: Literal["caption"] = "caption"
    objective: DecoderObjectiveConfig = chosen_by_name(CAPTION_OBJECTIVES, DecoderObjectiveConfig)
    evaluation: CaptioningConfig = field(default_factory=CaptioningConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_other_than_pairs(self.data)


@dataclass(frozen=True, kw_only=True)
class RecognitionConfig(RunConfig):
    """Action recognition: zero-shot by prompts, a linear probe on frozen features, or fine-tuning with a head."""

    reads_labels: ClassVar[bool] = True

    task: Literal["recognition"] = "recognition"
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-4))
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=32, max_epochs=1))
    objective: ClassObjectiveConfig | ProbeObjectiveConfig = chosen_by_name(CLASS_OBJECTIVES, ClassObjectiveConfig)
    evaluation: RecognitionEvaluationConfig = field(default_factory=RecognitionEvaluationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_sources(self.data)
        allowed = ("manifest", *RECOGNITION_DATASETS, *OPTION_DATASETS)
        if self.data.dataset not in allowed:
            raise ValueError(f"data.dataset: {self.data.dataset} has no classes of videos; name {', '.join(allowed)}")
        if self.data.dataset in OPTION_DATASETS and self.evaluation.classify == "head":
            raise ValueError(f"evaluation.classify: {self.data.dataset} has options, which no head knows; use prompts")
        check_views(self.data, self.video, self.model, self.objective, self.evaluation)
        if not self.trains_in_steps and self.optim != OptimConfig(lr=self.optim.lr):
            raise ValueError("optim: has no effect on a probe; its solver is in the objective section")

    @property
    def trains_in_steps(self) -> bool:
        """Whether training takes optimizer steps; a probe is fitted in one call."""
        return not isinstance(self.objective, ProbeObjectiveConfig)


@dataclass(frozen=True, kw_only=True)
class ChoiceConfig(RunConfig):
    """Multiple choice: fine-tuning on pairs with contrast and matching, evaluation by each video's own options."""

    reads_options: ClassVar[bool] = True

    task: Literal["choice"] = "choice"
    objective: PairObjectiveConfig = chosen_by_name(
        PAIR_OBJECTIVES, lambda: ObjectiveConfig(losses=("vtc", "vtm"), queue_size=32)
    )
    evaluation: ChoosingConfig = field(default_factory=ChoosingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.objective.check(self.train)
        refuse_sources(self.data)
        if self.data.dataset not in ("manifest", *CHOICE_DATASETS):
            raise ValueError(
                f"data.dataset: {self.data.dataset} has no options; name manifest or {', '.join(CHOICE_DATASETS)}"
            )
        if "match" not in self.objective.teaches and self.evaluation.matching:
            raise ValueError(
                f"evaluation.matching: matching is not trained by the losses of objective {self.objective.name}, "
                f"{', '.join(self.objective.losses)}; set it to 0"
            )


TaskConfig = PretrainConfig | RetrievalConfig | VqaConfig | CaptionConfig | RecognitionConfig | ChoiceConfig


class TaskEntry(NamedTuple):
    """A task: its configuration, and as "module:Class" what trains and evaluates it and what uses its checkpoints."""

    config: type[TaskConfig]
    task: str
    use: str
    script: str


# Using a checkpoint trained on pairs needs no objective: only training has the twin and the queue.
TASKS: dict[str, TaskEntry] = {
    "pretrain": TaskEntry(PretrainConfig, "tasks.pretrain:PretrainTask", "tasks.base:VideoTextTask", "pretrain.py"),
    "retrieval": TaskEntry(
        RetrievalConfig, "tasks.retrieval:RetrievalTask", "tasks.base:VideoTextTask", "train_retrieval.py"
    ),
    "vqa": TaskEntry(VqaConfig, "tasks.vqa:VqaTask", "tasks.vqa:VqaTask", "train_vqa.py"),
    "caption": TaskEntry(CaptionConfig, "tasks.caption:CaptionTask", "tasks.caption:CaptionTask", "train_caption.py"),
    "recognition": TaskEntry(
        RecognitionConfig,
        "tasks.recognition:RecognitionTask",
        "tasks.recognition:RecognitionTask",
        "train_recognition.py",
    ),
    "choice": TaskEntry(ChoiceConfig, "tasks.choice:ChoiceTask", "tasks.base:VideoTextTask", "train_choice.py"),
}
"""The tasks, by the `task` of a configuration."""
CONFIG_CLASSES: tuple[type[TaskConfig], ...] = tuple(entry.config for entry in TASKS.values())
"""One class per task; `configs.load.load_any` picks one by the `task` of a file."""
