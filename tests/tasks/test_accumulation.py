"""A step cut into micro-batches, of several processes, is the step of the whole batch where the objective allows it.

Losses and gradients of the engine's own step: captions by their tokens, answers by their questions. Contrast and
matching have their keys and negatives in one micro-batch, and are shown to differ.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from datasets.records import QuestionRecord
from datasets.samples import Clip
from engine.distributed import all_reduce_sum, rank, world_size
from engine.step import TrainingStep
from tasks.caption import CaptionTask
from tasks.pretrain import PretrainTask
from tasks.vqa import VqaTask, answers_of
from tests.gloo import run_ranks
from tests.models.tiny import randomise
from tests.tiny_runs import clips, config, write_data, write_questions

ROWS = 8
LENGTHS = (1, 1, 5, 13, 1, 11, 2, 17)
"""Words of each row's text: no two cuts of the batch have equally many tokens everywhere."""
QUESTIONS = (1, 3, 1, 1, 2, 1, 3, 1)
ANSWERS = (("red",), ("green and blue", "no"), ("grey grey grey white", "grey"))
WEIGHTS = ((0.2,), (0.4, 0.6), (1.0, 0.3))
WORDS = "red green blue grey white pink brown olive black cyan"
CUTS = (1, 2, 4)
Kind = tuple[str, dict[str, Any]]
KINDS: dict[str, Kind] = {
    "cap": ("pretrain", {"losses": ["cap"]}),
    "caption": ("caption", {}),
    "one question a video": ("vqa", {"questions": "one"}),
    "all questions of a video": ("vqa", {"questions": "all"}),
    "vtc": ("pretrain", {"losses": ["vtc"]}),
    "vtm": ("pretrain", {"losses": ["vtc", "vtm"]}),
}
EQUAL = tuple(KINDS)[:4]
TASKS: dict[str, Any] = {"pretrain": PretrainTask, "caption": CaptionTask, "vqa": VqaTask}
Step = tuple[dict[str, float], dict[str, Tensor]]


def words(row: int, number: int) -> str:
    """As many as `LENGTHS` says, from another place on for each row and number."""
    return " ".join((WORDS.split() * 3)[row + number :][: LENGTHS[row]])


def micro_batch(kind: str, rows: range) -> dict[str, Any]:
    """What the task's `train_epoch` hands out for these rows of the whole batch."""
    given: dict[str, Any] = {"clip": Clip.of_pixels(clips(ROWS)[rows.start : rows.stop]), "index": torch.tensor(rows)}
    if KINDS[kind][0] != "vqa":
        return {**given, "text": [words(row, 0) for row in rows]}
    asked_about = [
        [
            QuestionRecord(f"{row}.mp4", words(row, number), ANSWERS[row % 3], WEIGHTS[row % 3], f"{row}-{number}")
            for number in range(QUESTIONS[row] if kind == "all questions of a video" else 1)
        ]
        for row in rows
    ]
    questions = [record for records in asked_about for record in records]
    about = [place for place, records in enumerate(asked_about) for _ in records]
    texts = {"text": [record.question for record in questions], "text_sample": torch.tensor(about)}
    return {**given, **texts, **answers_of(questions)}


def step(root: Path, kind: str, cuts: int) -> Step:
    """The losses of a step in so many micro-batches, mean over processes, and the gradients its optimizer gets."""
    name, objective = KINDS[kind]
    settings = config(name, root, objective=objective, train={"batch_size": ROWS, "accumulate": cuts})
    task = TASKS[name](settings, torch.device("cpu"))
    torch.manual_seed(1)
    randomise(task)
    training_step = TrainingStep(task, settings, torch.device("cpu"))
    gradients: dict[str, Tensor] = {}

    def keep(*_: Any) -> None:
        gradients.update({n: p.grad.clone() for n, p in task.named_parameters() if p.grad is not None})

    training_step.optimizer.register_step_pre_hook(keep)
    share = ROWS // cuts // world_size()
    starts = [(cut * world_size() + rank()) * share for cut in range(cuts)]
    micro_batches = [micro_batch(kind, range(start, start + share)) for start in starts]
    task.begin_step(0, 0.0, micro_batches)
    losses, _ = training_step(micro_batches)
    mean = {name: all_reduce_sum(loss).item() / world_size() for name, loss in losses.items()}
    return {name: value for name, value in mean.items() if name.startswith("loss")}, gradients


def all_steps(root: Path) -> dict[tuple[str, int], Step]:
    return {(kind, cuts): step(root, kind, cuts) for kind in KINDS for cuts in CUTS if kind in EQUAL or cuts < 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(write_data(tmp_path_factory.mktemp("data"), [1] * 16, real=False), [1] * 16)


@pytest.fixture(scope="module")
def alone(data: Path) -> dict[tuple[str, int], Step]:
    return all_steps(data)


@pytest.fixture(scope="module")
def of_two(data: Path) -> list[dict[tuple[str, int], Step]]:
    return run_ranks(2, all_steps, data)


@pytest.mark.parametrize("kind", EQUAL)
def test_micro_batches_of_any_number_of_processes_are_the_whole_batch(
    alone: dict[tuple[str, int], Step], of_two: list[dict[tuple[str, int], Step]], kind: str
) -> None:
    losses, gradients = alone[kind, 1]
    assert len(losses) == 2 and len(gradients) > 50
    assert sum(bool(gradient.abs().max() > 1e-3) for gradient in gradients.values()) > 0.8 * len(gradients)
    for cuts in CUTS:
        for found, of_parameters in (steps[kind, cuts] for steps in (alone, *of_two)):
            assert found == pytest.approx(losses, rel=1e-6)
            assert of_parameters.keys() == gradients.keys()
            for name, gradient in gradients.items():
                torch.testing.assert_close(
                    of_parameters[name], gradient, rtol=1e-5, atol=1e-5, msg=lambda text, of=name: f"{of}: {text}"
                )


@pytest.mark.parametrize("kind", ["vtc", "vtm"])
def test_contrast_and_matching_see_one_micro_batch(
    alone: dict[tuple[str, int], Step], of_two: list[dict[tuple[str, int], Step]], kind: str
) -> None:
    """However many processes share it: two of them cut nothing up, two micro-batches do."""
    name = f"loss_{kind}"
    for steps in of_two:
        for cuts in (1, 2):
            assert steps[kind, cuts][0][name] == pytest.approx(alone[kind, cuts][0][name], rel=1e-5)
    assert abs(alone[kind, 2][0][name] - alone[kind, 1][0][name]) > 1e-3
