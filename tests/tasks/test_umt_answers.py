"""Question answering with UMT: a run trains and is evaluated, and answers are ranked as the reference ranks them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.load import from_dict
from configs.schema import TaskConfig
from engine.loop import evaluate
from models.protocols import Answerer
from models.umt.build import AnsweringModel, build_model, ended_twice
from tasks.vqa import VqaTask
from tests.models.tiny import randomise
from tests.tiny_runs import CONFIGS, settings, trainer, write_data, write_questions

CPU = torch.device("cpu")
MODEL: dict[str, Any] = {
    "name": "umt", "depth": 2, "width": 16, "heads": 2, "patch_size": 8, "pooling": "all",
    "text": {
        "tokenizer": "from_data", "vocab_size": 200, "depth": 3, "width": 16, "heads": 2, "intermediate": 32,
        "max_positions": 40, "dropout": 0.0, "fusion_layer": 1,
    },
}  # fmt: skip


def small(root: Path, task: str = "vqa", **sections: Any) -> TaskConfig:
    own = {"model": MODEL, "aggregation": {"reducer": "saliency", "tokens_per_block": [20]}, **sections}
    return from_dict(CONFIGS[task], {**settings(task, root), **own}, "test")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("data"), [1] * 5)
    return write_questions(root, [1, 2, 1, 3, 1])


def test_a_run_trains_everything_and_its_weights_answer_alike(data: Path, tmp_path: Path) -> None:
    config = small(data, output_dir=str(tmp_path))
    task = VqaTask(config, CPU)
    assert isinstance(task.model, Answerer)
    before = {name: parameter.clone() for name, parameter in task.model.named_parameters()}
    runner = trainer(task, config)
    runner.train()
    runner.save_last()
    runner.wait_until_saved()
    assert all(not torch.equal(parameter, before[name]) for name, parameter in task.model.named_parameters())

    found = evaluate(task, config, CPU, final=False)["metrics"]
    again = small(data, checkpoint=str(tmp_path / "checkpoint_last"), output_dir=str(tmp_path / "again"))
    assert evaluate(VqaTask(again, CPU), again, CPU, final=False)["metrics"] == found
    assert "accuracy" in found


@torch.no_grad()
def test_answers_get_the_second_end_that_they_were_trained_with(data: Path) -> None:
    task = VqaTask(small(data, objective={"label_smoothing": 0.0}), CPU)
    model, tokenizer = task.model, task.tokenizer
    assert isinstance(model, AnsweringModel)
    randomise(model)
    ids, mask = tokenizer(["red", "yes", "two green"], 10)
    twice, seen = ended_twice(ids, mask, tokenizer.sep_id)
    for row in range(3):
        real = ids[row][mask[row].bool()].tolist()
        assert twice[row][seen[row].bool()].tolist() == [*real, tokenizer.sep_id]

    states, asked = torch.randn(2, 5, 16), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    ranked = model.rank(states, asked, twice, seen, 3).rows[:, 0]
    assert torch.equal(model.answer(states, asked, ids, mask), ranked)
    question = model.text_decoder.bert.project(states)
    expected = model.text_decoder.losses(twice[[0, 1]], seen[[0, 1]], question, asked)
    torch.testing.assert_close(model.context_loss(states, ids[[0, 1]], mask[[0, 1]], asked), expected)


def test_what_umt_cannot_do_is_refused(data: Path) -> None:
    with pytest.raises(ValueError, match="evaluation.inference: umt ranks answers"):
        VqaTask(small(data, evaluation={"inference": "generate"}), CPU)
    with pytest.raises(ValueError, match="model.name: umt is for pairs and for answers, not for caption"):
        build_model(small(data, "caption"), None)


def test_answers_of_a_file_are_ranked(data: Path, tmp_path: Path) -> None:
    """Only what is listed is answered; its coverage is the ceiling."""
    (data / "answers.json").write_text('["yes", "purple"]')
    config = small(data, evaluation={"answers": "file", "answer_file": "answers.json"}, output_dir=str(tmp_path))
    results = evaluate(VqaTask(config, CPU), config, CPU, final=False)
    assert (results["answers"], results["num_answers"]) == ("file", 2)
    results["files"]["predictions.jsonl"](tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {row["predicted"] for row in rows} <= {"yes", "purple"}
    covered = 100 * sum("yes" in row["answers"] for row in rows) / len(rows)
    assert results["metrics"]["answer_list_coverage"] == covered
    with pytest.raises(ValueError, match=r"evaluation.answer_file: goes with evaluation.answers file"):
        small(data, evaluation={"answer_file": "answers.json"})


def test_questions_are_cut_to_as_many_pieces_as_the_data_section_says(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert VqaTask(small(data), CPU).question_tokens == 35
    task = VqaTask(small(data, data={"root": str(data), "manifest": "questions.jsonl", "max_tokens": 5}), CPU)
    shapes: list[int] = []

    def ground_text(tokens: Any, ids: torch.Tensor, mask: torch.Tensor, about: Any = None) -> torch.Tensor:
        shapes.append(ids.shape[1])
        return torch.zeros(len(ids), ids.shape[1], 16)

    monkeypatch.setattr(task.model, "ground_text", ground_text)
    evaluate(task, task.config, CPU, final=False)
    assert set(shapes) == {5}
