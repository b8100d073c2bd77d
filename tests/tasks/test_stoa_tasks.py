"""STOA-VLP through the shared tasks: captions, answers, and retrieval, with objects and without."""

import copy
import json
import os
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from configs.load import from_dict
from configs.schema import ChoiceConfig, TaskConfig
from datasets.objects.detections import ClipBoxes
from datasets.objects.store import ObjectSettings, StoreWriter
from datasets.samples import collate
from engine.distributed import all_reduce_sum, world_size
from engine.loop import evaluate
from inference.api import load_model
from models.stoa.downstream import AnsweringModel, CaptionModel
from models.stoa.objectives import answer_loss, writing_loss
from tasks.annotations import check_data
from tasks.caption import CaptionTask
from tasks.choice import ChoiceTask
from tasks.retrieval import RetrievalTask
from tasks.vqa import VqaTask
from tests.gloo import run_ranks
from tests.models.stoa.tiny import randomise
from tests.tiny_runs import CONFIGS, FRAMES, IMAGE, caption, settings, trainer, write_data, write_questions

CPU = torch.device("cpu")
MODEL: dict[str, Any] = {
    "name": "stoa", "depth": 3, "width": 16, "heads": 2, "patch_size": 8, "joint_depth": 1, "objects_per_frame": 2,
    "num_actions": 2, "embed_dim": 8, "fusion_depth": 2, "fusion_heads": 2, "fusion_positions": 48, "max_words": 30,
    "dropout": 0.0,
    "text": {
        "tokenizer": "from_data", "vocab_size": 700, "max_positions": 30, "depth": 2, "width": 16, "heads": 2,
    },
}  # fmt: skip
TASKS = {"caption": CaptionTask, "vqa": VqaTask, "retrieval": RetrievalTask}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "caption": {"label_smoothing": 0.0, "contrast": True},
    "vqa": {"label_smoothing": 0.0, "weights": "shares"},
    "retrieval": {"name": "fusion", "losses": ["vtc", "vtm"]},
}
EVALUATIONS: dict[str, dict[str, Any]] = {
    "caption": {"num_beams": 1, "best_metric": "cider_plain"},
    "vqa": {},
    "retrieval": {"rerank": 3, "rerank_rule": "scaled_probability", "predictions": 2},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos with captions, questions and boxes."""
    root = write_data(tmp_path_factory.mktemp("data"), [2, 1, 1, 1, 2, 1])
    write_questions(root, [1, 2, 1, 3, 1, 1])
    made_for = ObjectSettings(FRAMES, 2, IMAGE, "squash", "uniform", "a test", {})
    rng = np.random.default_rng(0)
    writer = StoreWriter(root / "a.objects", [f"{video}.mp4" for video in range(6)], made_for)
    for row in range(6):
        corners = rng.uniform(0, IMAGE / 2, (FRAMES, 2, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(4, IMAGE / 2, (FRAMES, 2, 2))], axis=-1)
        classes = rng.integers(0, 3, (FRAMES, 2))
        boxes[classes == 0] = -1
        ids = np.array([*dict.fromkeys(classes[classes > 0].tolist()), 0, 0, 0, 0])[:4]
        writer.put(row, ClipBoxes(boxes.astype(np.float32), classes, ids), IMAGE)
    writer.finish()
    return root


def small(root: Path, task: str, objects: str = "fusion", **sections: Any) -> TaskConfig:
    base = settings(task, root)
    base.pop("aggregation")
    where = {**base["data"], "objects": str(root / "a.objects")} if objects != "none" else base["data"]
    own = {
        "data": where,
        "model": {**MODEL, "objects": objects},
        "objective": OBJECTIVES[task],
        "evaluation": EVALUATIONS[task],
    }
    return from_dict(CONFIGS[task], {**base, **own, **sections}, "test")


@pytest.mark.parametrize("objects", ["none", "fusion", "attention"])
@pytest.mark.parametrize("task", ["caption", "vqa", "retrieval"])
def test_a_run_trains_all_it_has_and_its_weights_score_alike(
    data: Path, tmp_path: Path, task: str, objects: str
) -> None:
    config = small(data, task, objects, output_dir=str(tmp_path))
    module = TASKS[task](config, CPU)
    randomise(module.model)
    before = {name: parameter.clone() for name, parameter in module.model.named_parameters() if parameter.requires_grad}
    runner = trainer(module, config)
    runner.train()
    runner.save_last()
    runner.wait_until_saved()
    still = [name for name, value in before.items() if torch.equal(module.model.get_parameter(name), value)]
    assert not still, still

    found = evaluate(module, config, CPU, final=True)
    again = small(data, task, objects, checkpoint=str(tmp_path / "checkpoint_last"), output_dir=str(tmp_path / "again"))
    assert evaluate(TASKS[task](again, CPU), again, CPU, final=True)["metrics"] == found["metrics"]
    assert "predictions.jsonl" in found["files"]

    # The same by the API, whose clips bring their boxes too.
    found["files"]["predictions.jsonl"](tmp_path / "predictions.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    model = load_model(str(tmp_path / "checkpoint_last"), device="cpu")
    if task == "caption":
        assert model.caption([row["video"] for row in rows]) == [row["predicted"] for row in rows]
    elif task == "vqa":
        assert model.answer(rows[0]["video"], rows[0]["question"]) == rows[0]["predicted"]
    else:
        video = rows[0]["videos"][0]
        cosine = float(model.encode_text(rows[0]["text"]) @ model.encode_video(video))
        assert -1 <= cosine <= 1 and 0 <= model.match(video, rows[0]["text"]).probability <= 1


def test_boxes_that_are_not_there_are_named_at_once(data: Path) -> None:
    config = small(data, "caption")
    check_data(config, evaluate_only=False)
    config = replace(config, data=replace(config.data, objects="b.objects"))
    with pytest.raises(ValueError, match=r"b\.objects: there is no such file; make it \(python -m scripts\.prepare"):
        check_data(config, evaluate_only=False)


def evaluated(config: TaskConfig, seed: int = 0) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The metrics and predictions of a model with random weights, the same in every process."""
    torch.manual_seed(seed)
    task = TASKS[config.task](config, CPU)
    randomise(task.model)
    result = evaluate(task.eval(), config, CPU, final=True)
    path = Path(str(config.output_dir)) / f"predictions_{os.getpid()}.jsonl"
    path.parent.mkdir(exist_ok=True)
    result["files"]["predictions.jsonl"](path)
    return result["metrics"], [json.loads(line) for line in path.read_text().splitlines()]


def assert_same(found: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    """Equal, but for the last digits of scores."""
    assert found[0] == pytest.approx(expected[0], abs=1e-4)
    for row, other in zip(found[1], expected[1], strict=True):
        assert row.pop("scores", []) == pytest.approx(other.pop("scores", []), rel=1e-3, abs=1e-3) and row == other


def changed(config: TaskConfig, folder: Path, batch_size: int) -> TaskConfig:
    evaluation = replace(config.evaluation, batch_size=batch_size)
    return replace(config, evaluation=evaluation, output_dir=str(folder))


@pytest.mark.parametrize("task", ["caption", "vqa", "retrieval", "by query"])
def test_neither_batches_nor_processes_change_what_is_found(data: Path, tmp_path: Path, task: str) -> None:
    sections: dict[str, Any] = {}
    if task == "by query":
        rule = {**EVALUATIONS["retrieval"], "rerank_rule": "scaled_probability_by_query"}
        sections = {"objective": {**OBJECTIVES["retrieval"], "reference_form": True}, "evaluation": rule}
    config = small(data, "retrieval" if task == "by query" else task, **sections)
    alone = evaluated(changed(config, tmp_path / "a", 1))
    assert_same(evaluated(changed(config, tmp_path / "b", 4)), copy.deepcopy(alone))
    first, second = run_ranks(2, evaluated, changed(config, tmp_path / "c", 2))
    assert_same(first, copy.deepcopy(alone))
    assert first[0] == second[0]


def gradients_of(config: TaskConfig) -> dict[str, torch.Tensor]:
    """Of a step of this process's rows, averaged over processes."""
    torch.manual_seed(0)
    task = CaptionTask(config, CPU)  # type: ignore[arg-type]
    randomise(task.model)
    (batch,) = islice(task.train_epoch(0, 0), 1)
    task.begin_step(0, 0.0, [batch])
    sum(task(batch).values()).backward()  # type: ignore[union-attr]
    gradients = {name: parameter.grad for name, parameter in task.named_parameters() if parameter.grad is not None}
    return {name: all_reduce_sum(gradient) / world_size() for name, gradient in gradients.items()}


def test_two_processes_caption_and_contrast_as_one(data: Path) -> None:
    config = small(data, "caption")
    alone = gradients_of(config)
    for found in run_ranks(2, gradients_of, config):
        assert found.keys() == alone.keys()
        for name, gradient in alone.items():
            assert_close(found[name], gradient, atol=1e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


@torch.no_grad()
def test_captions_are_lost_and_written_as_the_model_alone_does(data: Path) -> None:
    task = CaptionTask(small(data, "caption"), CPU)
    model = task.model.eval()
    assert isinstance(model, CaptionModel)
    randomise(model)
    samples = task.training_samples()
    batch = _batch(samples, [0, 1, 4])
    ids, mask = task.tokenize(batch["text"])
    video = model.encode_video(batch["clip"].pixels, batch["clip"].extras)
    losses = model.context_loss(video.tokens, ids, mask)

    states = model.encode_text(ids, mask).states
    expected = writing_loss(model, video.memory, states, ids, mask, torch.ones(3, dtype=torch.int64))
    assert_close(losses.sum(), expected.total)
    alone = [
        model.context_loss(video.tokens[row : row + 1], ids[row : row + 1], mask[row : row + 1]) for row in range(3)
    ]
    assert_close(losses, torch.cat(alone), atol=1e-5, rtol=0)

    # A caption does not depend on its batch, greedy or not.
    for arguments in ({"num_beams": 1}, {"num_beams": 3}, {"top_p": 0.9, "noise": torch.rand(3, 8)}):
        together = task.tokenizer.written(model.generate(video.tokens, max_tokens=8, **arguments))
        for row in range(3):
            noise = {"noise": arguments["noise"][row : row + 1]} if "noise" in arguments else {}
            own = model.generate(video.tokens[row : row + 1], max_tokens=8, **{**arguments, **noise})
            assert task.tokenizer.written(own) == [together[row]]


@torch.no_grad()
def test_answers_are_ranked_by_their_first_token(data: Path) -> None:
    task = VqaTask(small(data, "vqa"), CPU)
    model = task.model.eval()
    assert isinstance(model, AnsweringModel)
    randomise(model)
    batch = _batch(task.training_samples(), [0, 3])
    ids, mask = task.tokenize(batch["text"])
    video = model.encode_video(batch["clip"].pixels, batch["clip"].extras)
    states = model.ground_text(video.tokens, ids, mask)

    answers = ["yes", "two red", "two", "no"]
    answer_ids, answer_mask = task.tokenize(answers)
    loss, logits = answer_loss(model, video.memory, model.encode_text(ids, mask), answer_ids[:2, 1])
    assert_close(model.context_loss(states, answer_ids[:2], answer_mask[:2]).sum(), loss.total)
    assert torch.equal(model.first_tokens(states), logits.argmax(dim=1))
    for row, best in enumerate(model.answer(states, mask, answer_ids, answer_mask).tolist()):
        scores = logits[row, answer_ids[:, 1]]
        assert scores[best] == scores.max() and best == int((scores == scores.max()).nonzero()[0])

    # Shares of a question sum to 1, whatever the records' weights.
    batches = list(task.train_epoch(0, 0))
    assert len({weight for found in batches for weight in found["weights"].tolist()}) > 1
    for found in batches:
        for question in range(len(found["text"])):
            assert_close(found["weights"][found["asked"] == question].sum(), torch.tensor(1.0))


def test_a_rule_matches_as_the_model_was_trained_to(data: Path) -> None:
    objective = {**OBJECTIVES["retrieval"], "reference_form": True}
    with pytest.raises(ValueError, match=r"evaluation\.rerank_rule: .*take scaled_probability_by_query"):
        small(data, "retrieval", objective=objective)
    with pytest.raises(ValueError, match=r"evaluation\.rerank_rule: .*take scaled_probability,"):
        rule = {"rerank": 3, "rerank_rule": "scaled_probability_by_query"}
        small(data, "retrieval", evaluation=rule)
    with pytest.raises(ValueError, match=r"evaluation\.rerank_tokens: stoa matches a text with a whole video; leave"):
        small(data, "retrieval", evaluation={**EVALUATIONS["retrieval"], "rerank_tokens": 0.5})


@pytest.mark.parametrize("reference_form", [False, True])
def test_scores_of_the_best_by_hand(data: Path, tmp_path: Path, reference_form: bool) -> None:
    """In reference form all candidates of a query are matched in one call; a text's score depends on them."""
    objective = {**OBJECTIVES["retrieval"], "reference_form": reference_form}
    rule = "scaled_probability_by_query" if reference_form else "scaled_probability"
    evaluation = {**EVALUATIONS["retrieval"], "rerank_rule": rule, "predictions": 6}
    config = small(data, "retrieval", objective=objective, evaluation=evaluation, output_dir=str(tmp_path))
    task = RetrievalTask(config, CPU)
    randomise(task.model)
    result = evaluate(task, config, CPU, final=True)
    result["files"]["predictions.jsonl"](tmp_path / "predictions.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]

    model = task.model.eval()
    data_set = task.evaluated(final=True)
    clips = _batch(task.training_samples(), _first_rows(data_set))["clip"]
    with torch.no_grad():
        video = model.encode_video(clips.pixels, clips.extras)
        for row in rows:
            ids, mask = task.tokenize([row["text"]])
            cosine = F.normalize(video.embedding, dim=-1) @ model.encode_text(ids, mask).embedding[0]
            best = cosine.topk(3).indices.sort().values
            logits = model.match(video.tokens[best], ids.repeat(3, 1), mask.repeat(3, 1), torch.arange(3))
            weights = (model.similarity_scale * cosine[best]).softmax(dim=0)
            scores = 1000 * weights * logits.softmax(dim=1)[:, 1]
            assert_close(torch.tensor(row["scores"][:3]), scores.sort(descending=True).values, atol=1e-2, rtol=1e-3)
            names = [Path(name).stem for name in row["videos"][:3]]
            assert names == [str(int(best[place])) for place in scores.argsort(descending=True)]


@torch.no_grad()
def test_choices_are_compared_as_published_or_as_everywhere_else(data: Path, tmp_path: Path) -> None:
    """In reference form a video is the sum of its frames' raw features; else, and with matching, objects count too."""
    rows = [
        {"video": f"{video}.mp4", "options": ["red is still", "a blue ball", caption(video)], "answer": 2}
        for video in range(6)
    ]
    (data / "choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    objective = {"name": "fusion", "losses": ["vtc", "vtm"]}
    cases = (("none", True, 0.0), ("none", False, 0.0), ("fusion", False, 0.0), ("fusion", False, 0.7))
    for objects, reference_form, matching in cases:
        base = settings("retrieval", data)
        where = {"root": str(data), "eval_manifest": "choices.jsonl"}
        where |= {"objects": "a.objects"} if objects != "none" else {}
        sections = {
            **{name: base[name] for name in ("optim", "train", "video")},
            "data": where,
            "model": {**MODEL, "objects": objects},
            "objective": {**objective, "reference_form": reference_form},
            "evaluation": {"matching": matching},
            "output_dir": str(tmp_path),
        }
        config = from_dict(ChoiceConfig, sections, "test")
        task = ChoiceTask(config, CPU)
        randomise(task.model)
        model = task.model.eval()
        result = evaluate(task, config, CPU, final=True)
        result["files"]["predictions.jsonl"](tmp_path / "choices.jsonl")
        found = json.loads((tmp_path / "choices.jsonl").read_text().splitlines()[3])

        clip = _batch(task.training_samples(), [_first_rows(task.split("train"))[3]])["clip"]
        ids, mask = task.tokenize(rows[3]["options"])
        video = model.encode_video(clip.pixels, clip.extras)
        embedding = video.embedding[0]
        if reference_form:
            embedding = F.normalize(video.memory.frames[0].sum(dim=0), dim=0)
        cosines = model.encode_text(ids, mask).embedding @ embedding
        scores = cosines if reference_form else (model.similarity_scale * cosines).softmax(dim=0)
        if matching:
            matched = model.match(video.tokens, ids, mask, torch.zeros(3, dtype=torch.int64)).softmax(dim=1)[:, 1]
            scores = matching * matched + (1 - matching) * scores
        assert_close(torch.tensor(found["score"]), scores, atol=1e-4, rtol=1e-4)


def _batch(samples: Any, items: list[int]) -> dict[str, Any]:
    return collate([samples[0, item] for item in items])


def _first_rows(split: Any) -> list[int]:
    rows, row = [], 0
    for record in split.present:
        rows.append(row)
        row += len(record.captions)
    return rows
