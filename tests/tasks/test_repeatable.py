"""Gradients repeat themselves to the bit, on several CPU threads too: nothing is added up in no fixed order."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models.parts.bert_attention import KeysValues
from tasks.caption import CaptionTask
from tasks.pretrain import PretrainTask
from tasks.retrieval import RetrievalTask
from tasks.vqa import VqaTask
from tests.gradients import UNORDERED, operations_of
from tests.tiny_runs import config, write_data, write_questions

TASKS: dict[str, Any] = {
    "pretrain": PretrainTask,
    "retrieval": RetrievalTask,
    "vqa": VqaTask,
    "caption": CaptionTask,
}

pytestmark = pytest.mark.usefixtures("without_java")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("data"), [1] * 8)
    return write_questions(root, [3, 1, 2, 3, 1, 2, 3, 1])


@pytest.mark.parametrize("kind", TASKS)
def test_no_gradient_is_added_up_in_no_fixed_order(data: Path, kind: str) -> None:
    task = TASKS[kind](config(kind, data), torch.device("cpu"))
    batch = next(iter(task.train_epoch(0, 0)))
    task.begin_step(0, 0.0, [batch])
    operations = operations_of(torch.stack(list(task(batch).values())).sum())
    assert "AddmmBackward0" in operations, "the walk reaches the layers"
    assert not operations & UNORDERED


def test_the_gradient_of_chosen_rows_repeats_itself_on_two_threads() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(8, 4, 60, 24, generator=generator, requires_grad=True)
    rows = torch.randint(8, (24,), generator=generator)
    gradient = torch.randn(24, 4, 60, 24, generator=generator)
    expected = torch.zeros_like(keys).index_add(0, rows, gradient)

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(60):
            (found,) = torch.autograd.grad(KeysValues(keys, keys).rows(rows).keys, keys, gradient)
            assert torch.equal(found, expected)
    finally:
        torch.set_num_threads(threads)
