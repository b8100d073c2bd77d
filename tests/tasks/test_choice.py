"""Multiple choice: scores against those written out, for systems that match and one that does not, on any processes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.load import from_dict
from configs.schema import ChoiceConfig
from datasets.annotations import manifest
from datasets.records import ChoiceRecord
from engine.distributed import rank
from engine.loop import evaluate
from tasks.choice import ChoiceTask, best_of
from tests.gloo import run_ranks
from tests.models.tiny import randomise
from tests.tiny_runs import SETTINGS, caption, trainer, write_data

CPU = torch.device("cpu")
VIDEOS = 6
UMT: dict[str, Any] = {
    "name": "umt", "depth": 2, "width": 16, "heads": 2, "patch_size": 8, "embed_dim": 8,
    "text": {
        "tokenizer": "from_data", "vocab_size": 200, "depth": 3, "width": 16, "heads": 2, "intermediate": 32,
        "max_positions": 40, "dropout": 0.0, "fusion_layer": 1,
    },
}  # fmt: skip
TVTS: dict[str, Any] = {
    "name": "tvts", "depth": 2, "width": 24, "heads": 2, "patch_size": 8, "embed_dim": 16, "sort_heads": 2,
    "text": {
        "tokenizer": "from_data", "vocab_size": 560, "depth": 2, "width": 16, "heads": 2, "trained_blocks": 1,
        "max_positions": 40,
    },
}  # fmt: skip
SYSTEMS: dict[str, dict[str, Any]] = {
    "umt": {"model": UMT, "objective": {"name": "unmasked_teacher", "losses": ["vtc", "vtm"]}, "matching": 0.7},
    "testa": {"model": SETTINGS["model"], "objective": {"losses": ["vtc", "vtm"], "queue_size": 6}, "matching": 0.7},
    "tvts": {
        "model": TVTS, "matching": 0.0,
        "objective": {"losses": ["vtc"], "queue_size": 0, "momentum": 0.0, "alpha": 0.0},
    },
}  # fmt: skip


def write_choices(root: Path, name: str = "choices.jsonl") -> list[ChoiceRecord]:
    """Choices about the videos of `write_data`: its caption among others, of several lengths."""
    lines = []
    for video in range(VIDEOS):
        options = [caption((video + step) % VIDEOS, step) for step in range(2 + video % 3)]
        answer = video % len(options)
        options[0], options[answer] = options[answer], options[0]
        lines.append({"video": f"{video}.mp4", "options": options, "answer": answer})
    (root / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return manifest.read_choices(root / name, root / "videos")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("data"), [1] * VIDEOS)
    write_choices(root)
    return root


def small(root: Path, system: str, **sections: Any) -> ChoiceConfig:
    """The configuration of a small run; `sections` come over it, key by key."""
    of_system = SYSTEMS[system]
    settings: dict[str, Any] = {
        "task": "choice",
        "data": {"root": str(root), "eval_manifest": "choices.jsonl"},
        "optim": {"lr": 1e-3},
        "train": SETTINGS["train"],
        "video": SETTINGS["video"],
        "model": of_system["model"],
        "objective": of_system["objective"],
        "evaluation": {"matching": of_system["matching"]},
        "output_dir": str(root / "run"),
    }
    for name, section in sections.items():
        settings[name] = {**settings.get(name, {}), **section} if isinstance(section, dict) else section
    return from_dict(ChoiceConfig, settings, "test")


def results_of(config: ChoiceConfig, weights: dict[str, Tensor] | None = None) -> tuple[dict[str, Any], list[Any]]:
    """The results of an evaluation, and the rows of its predictions; of fresh random weights unless given."""
    torch.manual_seed(0)
    task = ChoiceTask(config, CPU).eval()
    randomise(task.model)
    if weights is not None:
        task.model.load_state_dict(weights)
    results = evaluate(task, config, CPU, final=True)
    path = Path(str(config.output_dir)) / f"rows_{rank()}.jsonl"  # ranks write at the same time
    path.parent.mkdir(exist_ok=True)
    results["files"]["predictions.jsonl"](path)
    return results, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("system", SYSTEMS)
@torch.no_grad()
def test_scores_are_those_written_out(data: Path, system: str) -> None:
    config = small(data, system)
    results, rows = results_of(config)
    torch.manual_seed(0)
    task = ChoiceTask(config, CPU).eval()
    randomise(task.model)
    weight, records = config.evaluation.matching, write_choices(data)
    right = []
    for row, record, pixels in zip(rows, records, pixels_of(task, records), strict=True):
        ids, mask = task.tokenize([text.lower() for text in record.options])
        features = task.model.encode_video(pixels[None])
        cosines = (features.embedding @ task.model.encode_text(ids, mask).embedding.T)[0]
        score = (1 - weight) * (cosines * task.model.similarity_scale).softmax(0)
        if weight:
            about = torch.zeros(len(ids), dtype=torch.int64)
            score += weight * task.model.match(features.tokens, ids, mask, about).softmax(-1)[:, 1]
        torch.testing.assert_close(torch.tensor(row["score"]), score, atol=2e-6, rtol=0)
        assert row["predicted"] == int(score.argmax()) and row["options"] == list(record.options)
        right.append(row["predicted"] == record.answer)
    assert results["metrics"]["accuracy"] == 100 * sum(right) / VIDEOS
    assert results["metrics"]["chance_accuracy"] == pytest.approx(100 * (1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert (results["num_videos"], results["num_texts"], results["split"]) == (VIDEOS, VIDEOS, "choices")


def pixels_of(task: ChoiceTask, records: list[ChoiceRecord]) -> list[Tensor]:
    from tasks.data import videos_alone

    dataset = videos_alone(task.config, records, training=False)
    (batch,) = [videos for _, videos in task.each_video(dataset, len(records), [])]
    return list(batch)


def test_neither_batch_nor_processes_change_a_number(data: Path, tmp_path: Path) -> None:
    expected = results_of(small(data, "umt", output_dir=str(tmp_path / "one")))
    for batch_size in (1, 5):
        config = small(data, "umt", evaluation={"batch_size": batch_size}, output_dir=str(tmp_path / "batch"))
        assert_alike(results_of(config), expected)
    for found in run_ranks(2, results_of, small(data, "umt", output_dir=str(tmp_path / "two"))):
        assert_alike(found, expected)


def assert_alike(found: tuple[dict[str, Any], list[Any]], expected: tuple[dict[str, Any], list[Any]]) -> None:
    """The same metrics, counts and choices; scores to what a batch of another size rounds."""
    named = ("metrics", "num_videos", "num_texts", "failed")
    assert {name: found[0][name] for name in named} == {name: expected[0][name] for name in named}
    for row, other in zip(found[1], expected[1], strict=True):
        assert row["predicted"] == other["predicted"] and row["score"] == pytest.approx(other["score"], abs=2e-6)


def test_a_video_that_cannot_be_read_is_counted_and_left_out(data: Path, tmp_path: Path) -> None:
    root = write_data(tmp_path, [1] * VIDEOS)
    write_choices(root)
    (root / "videos" / "2.mp4").write_bytes(b"no video")
    (root / "videos" / "4.mp4").unlink()
    results, rows = results_of(small(root, "umt"))
    assert (results["num_annotated"], results["num_videos"], results["num_missing"]) == (VIDEOS, VIDEOS - 2, 2)
    assert [Path(row["video"]).name for row in rows] == ["0.mp4", "1.mp4", "3.mp4", "5.mp4"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_trains_on_pairs_and_its_weights_choose_alike(data: Path, tmp_path: Path, system: str) -> None:
    """On choices to train on too: the right option is the caption."""
    (tmp_path / "videos").symlink_to(data / "videos")
    (tmp_path / "choices.jsonl").write_text((data / "choices.jsonl").read_text())
    config = small(tmp_path, system, data={"manifest": "choices.jsonl"}, train={"max_epochs": 1})
    task = ChoiceTask(config, CPU)
    records = write_choices(data)
    assert list(task.training_samples().captions) == [record.options[record.answer] for record in records]
    runner = trainer(task, config)
    runner.train()
    runner.save_last()
    runner.wait_until_saved()

    found = evaluate(task.eval(), config, CPU, final=False)["metrics"]
    again = small(
        tmp_path, system, checkpoint=str(tmp_path / "run" / "checkpoint_last"), output_dir=str(tmp_path / "x")
    )
    assert evaluate(ChoiceTask(again, CPU), again, CPU, final=False)["metrics"] == found


def test_a_model_that_chooses_in_its_own_way_is_asked(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the longest option, which neither similarity nor match would give."""
    from models.umt.build import RetrievalModel

    def choose(self: Any, video_BTCHW: Tensor, ids: Tensor, mask: Tensor, about: Tensor) -> Tensor:
        assert len(video_BTCHW) == 1 and about.tolist() == [0] * len(ids)
        return mask.sum(dim=1).float()

    monkeypatch.setattr(RetrievalModel, "choose", choose, raising=False)
    _, rows = results_of(small(data, "umt", evaluation={"matching": 0.0}))
    for row in rows:
        assert row["predicted"] == best_of(row["score"]) and "similarity" not in row
    with pytest.raises(ValueError, match=r"evaluation.matching: this model scores options in its own way; set it to 0"):
        ChoiceTask(small(data, "umt"), CPU)


def test_of_equal_scores_the_first_is_chosen() -> None:
    assert [best_of(scores) for scores in ([0.5, 0.5], [0.1, 0.7, 0.7], [0.3])] == [0, 1, 0]


BAD = {
    '{"video": "a.mp4", "options": ["one"], "answer": 0}': "options is ['one']; write a list of at least two",
    '{"video": "a.mp4", "options": ["one", 2], "answer": 0}': "options is ['one', 2]; write a list",
    '{"video": "a.mp4", "options": ["one", "..."], "answer": 0}': "option '...' has no words",
    '{"video": "a.mp4", "options": ["one", "two"], "answer": 2}': "answer is 2; write the number of the right one of 2",
    '{"video": "a.mp4", "options": ["one", "two"], "answer": true}': "answer is True; write the number",
    '{"video": "a.mp4", "options": ["one", "two"]}': "no key 'answer'; add it",
    '{"video": "a.mp4", "options": ["one", "two"], "answer": 0, "caption": "x"}': "unknown key 'caption'",
}


@pytest.mark.parametrize(("line", "error"), BAD.items())
def test_bad_lines_of_a_manifest_are_named(tmp_path: Path, line: str, error: str) -> None:
    (tmp_path / "bad.jsonl").write_text(f'{{"video": "a.mp4", "options": ["one", "two"], "answer": 0}}\n{line}\n')
    with pytest.raises(ValueError) as caught:
        manifest.read_choices(tmp_path / "bad.jsonl", tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'bad.jsonl'}:2: {error}")


def test_captions_are_no_options_and_what_a_system_lacks_is_refused(data: Path) -> None:
    config = small(data, "umt", data={"eval_manifest": "captions.jsonl"})
    with pytest.raises(ValueError, match=r"^data.eval_manifest: manifest .*captions.jsonl has captions, not options"):
        ChoiceTask(config, CPU).build_train_loader()
    with pytest.raises(ValueError, match=r"^test: evaluation.matching: matching is not trained by the losses"):
        small(data, "tvts", evaluation={"matching": 0.7})
    with pytest.raises(ValueError, match=r"evaluation.matching: 1.5 is not a share from 0 to 1"):
        small(data, "umt", evaluation={"matching": 1.5})
    with pytest.raises(ValueError, match=r"data.dataset: msrvtt has no options; name manifest or msrvtt_mc"):
        small(data, "umt", data={"dataset": "msrvtt", "eval_manifest": None, "eval_split": "test"})
