"""Question answering: the loss by hand, and evaluation question by question, on any number of processes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from configs.load import from_dict
from configs.schema import VqaConfig
from datasets.samples import Clip
from engine.distributed import all_reduce_sum, rank, world_size
from engine.loop import evaluate
from tasks import vqa as module
from tasks.vqa import VqaTask
from tests.gloo import run_ranks
from tests.models.tiny import randomise
from tests.tiny_runs import clips, config, settings, write_data, write_questions

CPU = torch.device("cpu")
QUESTIONS = [3, 1, 2, 0, 3, 1, 2, 3]
UNREADABLE, MISSING = 1, 4
ONE, ALL = {"questions": "one"}, {"questions": "all"}
Result = dict[str, Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions about seven videos, of which one is missing and one is no video; the test set is one of five others."""
    root = write_data(tmp_path_factory.mktemp("data"), [1] * 8)
    (root / "videos" / f"{MISSING}.mp4").unlink()
    (root / "videos" / f"{UNREADABLE}.mp4").write_bytes(b"no video " * 100)
    write_questions(root, QUESTIONS)
    return write_questions(root, [1, 0, 3, 0, 0, 3], "test.jsonl")


def build(root: Path, **sections: Any) -> VqaTask:
    task = VqaTask(config("vqa", root, **sections), CPU)
    torch.manual_seed(1)
    randomise(task.model)
    return task


def evaluated(root: Path, final: bool = False, **sections: Any) -> tuple[Result, list[Result]]:
    """The result without its files, and the rows of predictions.jsonl."""
    task = build(root, **sections)
    result = evaluate(task, task.config, CPU, final=final)
    path = root / f"predictions.{rank()}.jsonl"
    result.pop("files")["predictions.jsonl"](path)
    return result, [json.loads(line) for line in path.read_text().splitlines()]


def batch(task: VqaTask, rows: list[int]) -> dict[str, Any]:
    """What `train_epoch` hands out for these rows, with random clips."""
    records = task.split("train").present
    chosen = [records[row] for row in rows]
    return {
        "clip": Clip.of_pixels(torch.cat([clips(1, seed=row) for row in rows])),
        "text": [record.question for record in chosen],
        "text_sample": torch.arange(len(rows)),
        "answers": [answer for record in chosen for answer in record.answers],
        "weights": torch.tensor([weight for record in chosen for weight in record.weights]),
        "asked": torch.tensor([place for place, record in enumerate(chosen) for _ in record.answers]),
    }


def test_the_loss_is_that_of_every_answer_by_its_weight(data: Path) -> None:
    task = build(data)
    rows = [0, 2, 5, 3]
    given = batch(task, rows)
    assert len(given["answers"]) > len(rows)  # "two" by two annotators and "2" by one
    expected = 0.0
    for place, row in enumerate(rows):
        record = task.split("train").present[row]
        ids, mask = task.tokenize([record.question])
        states = task.model.ground_text(task.model.video_tokens(given["clip"].pixels[place : place + 1]), ids, mask)
        for answer, weight in zip(record.answers, record.weights, strict=True):
            answer_ids, answer_mask = task.tokenize([answer])
            expected += weight * task.model.context_loss(states, answer_ids, answer_mask).item() / len(rows)
    task.begin_step(0, 0.0, [given])
    assert task(given)["vqa"].item() == pytest.approx(expected, rel=1e-5)


def test_training_hands_out_the_answers_of_each_row(data: Path) -> None:
    task = build(data)
    records = task.split("train").present
    seen = []
    for given in task.train_epoch(0, 0):
        assert {"clip", "text", "failed"} <= given.keys()
        for place, row in enumerate(given["row"].tolist()):
            own = (given["asked"] == place).nonzero().flatten().tolist()
            assert tuple(given["answers"][index] for index in own) == records[row].answers
            assert given["weights"][own].tolist() == pytest.approx(list(records[row].weights))
            assert given["text"][place] == records[row].question
            seen.append(row)
    assert len(seen) == 12 and task.steps_per_epoch == 3


def batch_of_videos(task: VqaTask, videos: list[int]) -> dict[str, Any]:
    """What `train_epoch` hands out for all questions about these videos, of which one stands for several texts."""
    records = task.split("train").present
    about = [[record for record in records if Path(record.video).stem == str(video)] for video in videos]
    questions = [record for records in about for record in records]
    return {
        "clip": Clip.of_pixels(torch.cat([clips(1, seed=video) for video in videos])),
        "text": [record.question for record in questions],
        "text_sample": torch.tensor([place for place, records in enumerate(about) for _ in records]),
        **module.answers_of(questions),
    }


def test_all_questions_about_a_video_train_as_each_with_the_video_of_its_own(data: Path) -> None:
    task, videos = build(data, objective=ALL), [0, 2, 6]
    given = batch_of_videos(task, videos)
    assert given["text_sample"].tolist() == [0, 0, 0, 1, 1, 2, 2]
    task.begin_step(0, 0.0, [given])
    together = task(given)["vqa"]
    together.backward()
    gradients = {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}
    task.zero_grad()
    pixels = given["clip"].pixels[given["text_sample"]]
    repeated = {**given, "clip": Clip.of_pixels(pixels), "text_sample": torch.arange(7)}
    apart = task(repeated)["vqa"]
    apart.backward()
    assert together.item() == pytest.approx(apart.item(), rel=1e-5) and len(gradients) > 50
    for name, parameter in task.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)


def test_every_question_is_asked_once_an_epoch_and_every_video_shown_once(data: Path) -> None:
    task = build(data, objective=ALL, train={"batch_size": 2})
    records = task.split("train").present
    assert task.steps_per_epoch == 3  # six videos with questions that are there
    videos = list(dict.fromkeys(record.video for record in records))
    shown = []
    for given in task.train_epoch(0, 0):
        shown += [videos[index] for index in given["index"].tolist()]
        of_these = [[record for record in records if record.video == video] for video in shown[-2:]]
        assert given["text"] == [record.question for about in of_these for record in about]
        assert given["text_sample"].tolist() == [place for place, about in enumerate(of_these) for _ in about]
    # In place of the one that cannot be read another is shown, with its own questions.
    assert len(shown) == 6 and set(videos) - set(shown) == {v for v in videos if Path(v).stem == str(UNREADABLE)}


def train_step(root: Path, objective: dict[str, Any]) -> dict[str, Any]:
    """Loss and gradients of one batch of four, on however many processes there are."""
    task = build(root, objective=objective)
    model = task if world_size() == 1 else DistributedDataParallel(task)
    rows, of_these = ([0, 2, 5, 3], batch) if objective == ONE else ([0, 2, 6, 3], batch_of_videos)
    share = len(rows) // world_size()
    given = of_these(task, rows[rank() * share : (rank() + 1) * share])
    task.begin_step(0, 0.0, [given])
    loss = model(given)["vqa"]
    loss.backward()
    gradients = {name: p.grad for name, p in task.named_parameters() if p.requires_grad}
    return {"loss": all_reduce_sum(loss) / world_size(), **gradients}


GENERATE = {"evaluation": {"inference": "generate", "max_tokens": 6}}
WAYS: dict[str, dict[str, Any]] = {"rank": {}, "generate": GENERATE}


def in_a_rank(root: Path) -> tuple[list[dict[str, Any]], dict[str, tuple[Result, list[Result]]]]:
    return [train_step(root, objective) for objective in (ONE, ALL)], {
        way: evaluated(root, **sections) for way, sections in WAYS.items()
    }


@pytest.fixture(scope="module")
def ranks(data: Path) -> list[Any]:
    return run_ranks(2, in_a_rank, data)


@pytest.mark.parametrize("objective", [0, 1], ids=["one", "all"])
def test_two_ranks_train_as_one_and_every_parameter_has_a_gradient(
    data: Path, ranks: list[Any], objective: int
) -> None:
    expected = train_step(data, (ONE, ALL)[objective])
    assert all(tensor is not None for tensor in expected.values())
    assert sum(bool(tensor.abs().max() > 1e-4) for tensor in expected.values()) > 0.8 * len(expected)
    for found, _ in ranks:
        for name, tensor in expected.items():
            torch.testing.assert_close(
                found[objective][name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, of=name: of + text
            )


@pytest.mark.parametrize("way", WAYS)
def test_batch_size_and_number_of_processes_change_nothing(data: Path, ranks: list[Any], way: str) -> None:
    expected = evaluated(data, **WAYS[way])
    assert len({row["predicted"] for row in expected[1]}) > 1
    for batch_size in (1, 3):
        evaluation = {**WAYS[way].get("evaluation", {}), "batch_size": batch_size}
        assert evaluated(data, evaluation=evaluation) == expected
    assert [results[way] for _, results in ranks] == [expected] * 2


@torch.no_grad()
def test_each_answer_is_the_best_of_the_list_for_its_own_question_and_video(data: Path) -> None:
    _, rows = evaluated(data)
    task = build(data).eval()
    listed = task.answer_list(list(task.known_answers()))
    assert listed.texts[0] == "yes" and len(listed.texts) == len(set(listed.texts)) == 10
    videos = {
        position: task.model.video_tokens(pixels)
        for positions, pixels in task.each_video(
            module.video_text(task.config, task.split("eval").present, False), 1, []
        )
        for position in positions
    }
    paths = dict.fromkeys(record.video for record in task.split("eval").present)
    place = {path: position for position, path in enumerate(paths)}
    for row in rows:
        ids, mask = task.tokenize([row["question"].lower()])
        states = task.model.ground_text(videos[place[row["video"]]], ids, mask)
        losses = []
        for text in listed.texts:
            answer_ids, answer_mask = task.tokenize([text])
            losses.append(float(task.model.context_loss(states, answer_ids, answer_mask, mask)))
        assert row["predicted"] == listed.texts[losses.index(min(losses))]


def test_each_video_is_encoded_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = build(data)
    encoded, original = [], task.model.video_tokens

    def watched(video: torch.Tensor) -> torch.Tensor:
        encoded.append(len(video))
        return original(video)

    monkeypatch.setattr(task.model, "video_tokens", watched)
    monkeypatch.setattr(module, "AT_ONCE", 2)  # three questions about a video go in two pieces
    result = evaluate(task, task.config, CPU, final=False)
    assert sum(encoded) == result["num_videos"] == 5
    assert result["metrics"] == evaluated(data)[0]["metrics"]


def test_what_a_result_is_of(data: Path) -> None:
    result, rows = evaluated(data)
    readable = [count for video, count in enumerate(QUESTIONS) if video not in (UNREADABLE, MISSING)]
    assert (result["num_annotated"], result["num_videos"], result["num_missing"]) == (7, 5, 2)
    assert result["num_texts"] == len(rows) == sum(readable) == 11
    assert (result["split"], result["answers"], result["num_answers"]) == ("questions", "train", 10)
    assert {Path(entry["video"]).stem for entry in result["failed"]} == {str(UNREADABLE), str(MISSING)}
    metrics = result["metrics"]
    kinds = {"accuracy_colour": "colour", "accuracy_yes_no": "yes/no", "accuracy_number": "number"}
    assert metrics.keys() == {"accuracy", *kinds, "majority_accuracy", "answer_list_coverage"}
    numbers = {"0": "accuracy_colour", "1": "accuracy_yes_no", "2": "accuracy_number"}
    for number, name in numbers.items():
        own = [row for row in rows if row["question_id"].endswith(f"-{number}")]
        right = [row["predicted"] in row["answers"] for row in own]
        assert metrics[name] == pytest.approx(100 * sum(right) / len(right))
    assert metrics["accuracy"] == pytest.approx(100 * sum(row["predicted"] in row["answers"] for row in rows) / 11)
    # The commonest training answer is of "does it move": nearly always "yes".
    assert metrics["majority_accuracy"] == pytest.approx(100 * sum("yes" in row["answers"] for row in rows) / 11)
    assert metrics["answer_list_coverage"] == 100.0


def test_the_list_is_of_training_unless_the_evaluated_split_is_asked_for(data: Path) -> None:
    """Of the test set's answers only one is not known from training."""
    tested = {"data": {"manifest": "questions.jsonl", "test_manifest": "test.jsonl"}}
    (data / "test.jsonl").write_text((data / "test.jsonl").read_text().replace('"blue"', '"mauve"'))
    honest, rows = evaluated(data, final=True, **tested)
    given_away, _ = evaluated(data, final=True, **tested, evaluation={"answers": "evaluated_split"})
    assert (honest["split"], honest["answers"], honest["num_answers"]) == ("test", "train", 10)
    assert (given_away["answers"], given_away["num_answers"]) == ("evaluated_split", 6)
    assert honest["metrics"]["answer_list_coverage"] == pytest.approx(100 * 6 / 7)
    assert given_away["metrics"]["answer_list_coverage"] == 100.0
    assert honest["metrics"]["majority_accuracy"] == given_away["metrics"]["majority_accuracy"]
    assert "mauve" not in {row["predicted"] for row in rows}
    written, _ = evaluated(data, final=True, **tested, **GENERATE)
    assert (written["answers"], written["num_answers"]) == ("generated", None)
    assert "answer_list_coverage" not in written["metrics"]


def test_written_answers_are_compared_as_the_tokenizer_spells_them(data: Path) -> None:
    task = build(data)
    assert task.as_spelled("T-Yes's  no") == task.as_spelled("t - yes ' s no")
    assert task.as_spelled("yes") != task.as_spelled("no")


def test_a_checkpoint_brings_its_answers_and_needs_no_training_data(data: Path, tmp_path: Path) -> None:
    task = build(data)
    assert task.steps_per_epoch == 3
    task.save_extras(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.build.read_weights", lambda path: task.state_dict() | {})
        sections = {"data": {"manifest": "no_such_file.jsonl", "test_manifest": "test.jsonl"}}
        other = VqaTask(config("vqa", data, checkpoint=str(tmp_path), **sections), CPU)
    assert other.known_answers() == task.known_answers()
    assert list(json.loads((tmp_path / "answers.json").read_text())) == list(task.known_answers())
    result = evaluate(other, other.config, CPU, final=True)
    assert (result["split"], result["answers"], result["num_answers"]) == ("test", "train", 9)
    # What a run trains on is what it knows, whatever it started from.
    write_questions(data, [1, 1, 1, 1], "fewer.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.build.read_weights", lambda path: task.state_dict() | {})
        given = settings(
            "vqa", data, checkpoint=str(tmp_path), data={"manifest": "fewer.jsonl"}, train={"batch_size": 2}
        )
        tuned = VqaTask(from_dict(VqaConfig, given, "test"), CPU)
    assert tuned.steps_per_epoch == 2 and len(tuned.known_answers()) == 4


def test_a_type_of_question_that_nobody_asks_cannot_choose_the_best(data: Path) -> None:
    known = "accuracy, accuracy_colour, accuracy_number, accuracy_yes_no"
    with pytest.raises(ValueError, match=rf"best_metric: no metric is named accuracy_why, .*; there are {known}$"):
        build(data, evaluation={"best_metric": "accuracy_why"}).build_train_loader()
    build(data, evaluation={"best_metric": "accuracy_yes_no"}).build_train_loader()
