"""The classes of videos, as evaluation of recognition finds them: by a trained head, or by prompts.

Shapes: V videos, C classes, P templates a class, E width of the shared space.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.recognition import PROMPTS, RecognitionEvaluationConfig
from configs.schema import RecognitionConfig
from datasets.prompts import fill_prompts
from tasks.class_prompts import templates_of
from tasks.metrics.recognition import class_embeddings, class_logits
from tasks.recognition import RecognitionTask
from tasks.views import Views

if TYPE_CHECKING:
    from inference.trained_model import TrainedModel

Classify = Callable[[Views], tuple[Sequence[str], Tensor]]


class FoundClass(NamedTuple):
    """A class that a video may be of, and its probability among all classes."""

    name: str
    probability: float


def classifier(model: "TrainedModel", classes: Sequence[str] | None, prompts: str | Sequence[str] | None) -> Classify:
    """What finds the names of the classes and the probabilities (V, C) of videos: the model's head, or prompts.

    ValueError for classes or prompts that do not fit the checkpoint.
    """
    task = model.task
    if isinstance(task, RecognitionTask) and task.by_head:
        if classes is not None or prompts is not None:
            raise ValueError(
                f"{model.source}: its head knows its own classes; leave out classes and prompts, or load it with "
                "evaluation.classify=prompts"
            )
        return partial(_by_head, task)

    if classes is None:
        raise ValueError(f"{model.source}: has no head; give the classes to choose from, such as ['walk', 'sit']")
    names, filled = tuple(classes), prompts_for(model.config, classes, prompts)
    rows_PE = model.encode_text([text for of_class in filled for text in of_class]).numpy()
    return partial(_by_prompts, names, class_embeddings(rows_PE.reshape(len(names), -1, rows_PE.shape[1])))


def _by_head(task: RecognitionTask, views: Views) -> tuple[Sequence[str], Tensor]:
    assert task.classes is not None
    with torch.no_grad():
        logits = task.head_logits(views.embeddings)
    return task.classes, torch.from_numpy(views.mean_logits(logits)).softmax(dim=1)


def _by_prompts(names: Sequence[str], classes_CE: NDArray, views: Views) -> tuple[Sequence[str], Tensor]:
    """The softmax over 100 times the cosine of each video and each class, as zero-shot evaluation scores them."""
    return names, torch.from_numpy(class_logits(views.mean_embeddings(), classes_CE)).softmax(dim=1)


def evaluation_of(config: Any) -> RecognitionEvaluationConfig:
    """How recognition looks at videos; the defaults where a checkpoint was trained for something else."""
    return config.evaluation if isinstance(config, RecognitionConfig) else RecognitionEvaluationConfig()


def prompts_for(config: Any, classes: Sequence[str], templates: str | Sequence[str] | None) -> list[list[str]]:
    """For each class its prompts; by default of the configured templates, or of TVTSv2's where a task has none."""
    if isinstance(classes, str) or len(set(classes)) != len(classes) or len(classes) < 2:
        raise ValueError(f"classes: {classes!r} is no list of at least two different names; give all that may occur")
    if templates is None:
        templates = templates_of(config) if isinstance(config, RecognitionConfig) else PROMPTS
    return fill_prompts(classes, [templates] if isinstance(templates, str) else templates)


def best(classes: Sequence[str], probabilities_VC: Tensor, most: int) -> list[list[FoundClass]]:
    """The `most` probable classes of each video, the best first; ties go to the first class."""
    if most < 1:
        raise ValueError(f"most: {most} asks for no class; give 1 or more")
    order = probabilities_VC.argsort(dim=1, descending=True, stable=True)[:, :most]
    return [
        [FoundClass(classes[place], float(row[place])) for place in places]
        for row, places in zip(probabilities_VC, order.tolist(), strict=True)
    ]
