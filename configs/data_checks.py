"""Which data a task can read: the checks that several tasks share."""

from collections.abc import Mapping

from configs.data import CHOICE_DATASETS, QUESTION_DATASETS, DataConfig
from configs.model import VideoConfig
from configs.models.base import ModelConfig
from configs.recognition import (
    OPTION_DATASETS,
    RECOGNITION_DATASETS,
    ClassObjectiveConfig,
    ProbeObjectiveConfig,
    RecognitionEvaluationConfig,
)


def refuse_unexpanded(paths: Mapping[str, str | None], data: DataConfig) -> None:
    """Refuse paths that begin with ~, which only a shell expands: a folder named ~ would be created."""
    own = {f"data.{name}": getattr(data, name) for name in ("root", "videos", "objects", "tags")}
    for name, path in {**paths, **own}.items():
        if path is not None and path.startswith("~/"):
            raise ValueError(f"{name}: {path} begins with ~/, which only a shell spells out; write the whole path")


def refuse_other_than_pairs(data: DataConfig) -> None:
    """Refuse data other than one set of videos with captions."""
    refuse_sources(data)
    refuse_labels(data)
    if data.dataset in QUESTION_DATASETS:
        raise ValueError(f"data.dataset: {data.dataset} has questions, not captions; use train_vqa.py")


def refuse_sources(data: DataConfig) -> None:
    """Refuse several sources."""
    if data.sources:
        raise ValueError("data.sources: are for pre-training alone; name one data.dataset or data.manifest")


def refuse_labels(data: DataConfig) -> None:
    """Refuse sets of classes or options."""
    if data.dataset in (*RECOGNITION_DATASETS, *OPTION_DATASETS):
        raise ValueError(f"data.dataset: {data.dataset} has classes, not texts; use train_recognition.py")
    if data.dataset in CHOICE_DATASETS:
        raise ValueError(f"data.dataset: {data.dataset} has options to choose from; use train_choice.py")


def check_windows(video: VideoConfig) -> None:
    """Refuse sliding windows with a frame rule that has no intervals to slide in."""
    if not video.eval_sampling.startswith("interval_middle"):
        raise ValueError(
            f"evaluation.windows: slide within the intervals of video.eval_sampling interval_middle, and it is "
            f"{video.eval_sampling}; set it to interval_middle"
        )


def check_views(
    data: DataConfig,
    video: VideoConfig,
    model: ModelConfig,
    objective: ClassObjectiveConfig | ProbeObjectiveConfig,
    evaluation: RecognitionEvaluationConfig,
) -> None:
    """Refuse views of a video, and hidden patches, that the frame rule, the model or boxes do not allow."""
    if evaluation.windows > 1:
        check_windows(video)
    if data.objects is not None:
        for name in ("windows", "mirror"):
            if getattr(evaluation, name) != getattr(type(evaluation), name):
                raise ValueError(f"evaluation.{name}: boxes are of the frames of one clip; leave it out")
    if isinstance(objective, ClassObjectiveConfig) and objective.hide_patches and not model.hides_patches:
        raise ValueError("objective.hide_patches: takes a model with a model.mask_ratio above 0; leave it out")
