"""Captioning: the loss by hand, and captions that depend on nothing but the weights, the video and the seed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from datasets.samples import Clip
from engine.distributed import all_reduce_sum, rank, world_size
from engine.loop import evaluate
from tasks.caption import CaptionTask, scores_plainly
from tasks.metrics.captions import CaptionScorer
from tests.gloo import run_ranks
from tests.models.tiny import randomise
from tests.tiny_runs import caption, clips, config, write_data

pytestmark = pytest.mark.usefixtures("without_java")

CPU = torch.device("cpu")
CAPTIONS = [1, 2, 1, 1, 3, 1, 1, 2]
UNREADABLE, MISSING = 1, 4
NUCLEUS = {"evaluation": {"method": "nucleus", "top_p": 0.95}}
WAYS: dict[str, dict[str, Any]] = {"beam": {}, "nucleus": NUCLEUS}
TEXTS = [caption(video) for video in (0, 1, 2, 4)]
Result = dict[str, Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos, of which one is missing and one is no video."""
    root = write_data(tmp_path_factory.mktemp("data"), CAPTIONS)
    (root / "videos" / f"{MISSING}.mp4").unlink()
    (root / "videos" / f"{UNREADABLE}.mp4").write_bytes(b"no video " * 100)
    return root


def build(root: Path, **sections: Any) -> CaptionTask:
    task = CaptionTask(config("caption", root, **sections), CPU)
    torch.manual_seed(1)
    randomise(task.model)
    return task


def evaluated(root: Path, **sections: Any) -> tuple[Result, list[Result]]:
    """The result without its files, and the rows of predictions.jsonl."""
    task = build(root, **sections)
    result = evaluate(task, task.config, CPU, final=True)
    path = root / f"predictions.{rank()}.jsonl"
    result.pop("files")["predictions.jsonl"](path)
    return result, [json.loads(line) for line in path.read_text().splitlines()]


def train_step(root: Path) -> dict[str, Any]:
    """Loss and gradients of one batch of four texts of several lengths, on however many processes there are."""
    task = build(root)
    model = task if world_size() == 1 else DistributedDataParallel(task)
    rows = slice(rank() * 4 // world_size(), (rank() + 1) * 4 // world_size())
    given: dict[str, Any] = {"clip": Clip.of_pixels(clips(4)[rows]), "text": TEXTS[rows]}
    task.begin_step(0, 0.0, [given])
    loss = model(given)["cap"]
    loss.backward()
    gradients = {name: p.grad for name, p in task.named_parameters() if p.requires_grad}
    return {"loss": all_reduce_sum(loss) / world_size(), **gradients}


def in_a_rank(root: Path) -> tuple[dict[str, Any], dict[str, tuple[Result, list[Result]]]]:
    return train_step(root), {way: evaluated(root, **sections) for way, sections in WAYS.items()}


def test_the_loss_is_the_mean_over_all_tokens(data: Path) -> None:
    task = build(data)
    summed, tokens = 0.0, 0
    for row, text in enumerate(TEXTS):
        ids, mask = task.tokenize([text])
        video = task.model.video_tokens(clips(4)[row : row + 1])
        summed += task.model.context_loss(video, ids, mask).item()
        tokens += ids.shape[1] - 1
    given: dict[str, Any] = {"clip": Clip.of_pixels(clips(4)), "text": TEXTS}
    task.begin_step(0, 0.0, [given])
    assert task(given)["cap"].item() == pytest.approx(summed / tokens, rel=1e-5)


def test_number_of_processes_changes_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = in_a_rank(data)
    step = expected[0]
    assert all(tensor is not None for tensor in step.values())
    assert sum(bool(tensor.abs().max() > 1e-4) for tensor in step.values()) > 0.8 * len(step)
    for found, results in run_ranks(2, in_a_rank, data):
        for name, tensor in step.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, of=name: of + text)
        assert results == expected[1]


@pytest.mark.parametrize("way", WAYS)
def test_batch_size_changes_nothing_and_texts_are_their_videos_own(data: Path, way: str) -> None:
    expected = evaluated(data, **WAYS[way])
    assert len({row["predicted"] for row in expected[1]}) > 2
    for batch_size in (1, 3):
        evaluation = {**WAYS[way].get("evaluation", {}), "batch_size": batch_size}
        assert evaluated(data, evaluation=evaluation) == expected


def test_another_seed_draws_other_words(data: Path) -> None:
    one, other = (evaluated(data, seed=seed, **NUCLEUS)[1] for seed in (1, 2))
    assert sum(a["predicted"] != b["predicted"] for a, b in zip(one, other, strict=True)) >= 5


def test_what_a_result_is_of(data: Path) -> None:
    result, rows = evaluated(data)
    kept = [video for video in range(8) if video not in (UNREADABLE, MISSING)]
    assert (result["num_annotated"], result["num_videos"], result["num_missing"]) == (8, 6, 2)
    assert result["num_texts"] == sum(CAPTIONS[video] for video in kept)
    assert [row["video"] for row in rows] == [str(data / "videos" / f"{video}.mp4") for video in kept]
    assert rows[-1]["captions"] == [caption(7), caption(7, 1)]  # a video is held against all of its captions
    # Nothing was trained, so all that is annotated counts, also of the video that is missing.
    longest = max(build(data).tokenize([caption(v, n)])[0].shape[1] for v in range(8) for n in range(2))
    assert result["generation"] == {"method": "beam", "num_beams": 3, "min_tokens": 1, "max_tokens": longest - 1}
    settings = {**NUCLEUS["evaluation"], "min_tokens": 2, "max_tokens": 5}
    assert evaluated(data, evaluation=settings)[0]["generation"] == settings
    assert {"cider_plain", "bleu4_plain", "rouge_l_plain"} <= result["metrics"].keys()


def test_how_captions_are_scored_is_chosen_when_training_begins(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = build(data, evaluation={"best_metric": "bleu4"})
    task.build_train_loader()
    assert task.best_metric == "bleu4_plain" and task.scorer is not None and task.scorer.plain
    monkeypatch.setattr(CaptionScorer, "why_not_java", lambda scorer: None)
    assert "bleu4_plain" in evaluate(task, task.config, CPU, final=False)["metrics"]  # Java by now: nothing changes

    task.build_train_loader()
    assert task.best_metric == "bleu4" and not task.scorer.plain
    with pytest.raises(ValueError, match=r"no java on the PATH\), although .* evaluation\.best_metric=bleu4_plain"):
        evaluate(task, task.config, CPU, final=False)  # and there is none any more


@pytest.mark.parametrize(
    ("asked", "before", "trouble", "outcome"),
    [
        ("cider", None, None, False),
        ("cider", None, "no java", True),
        ("cider", "cider", None, False),
        ("cider", "cider", "no java", r"cider, which chose .* no java; mend that, or .*best_metric=cider_plain"),
        ("cider", "cider_plain", None, True),
        ("cider_plain", "cider", None, True),
        ("meteor", None, "no java", "meteor needs Java: no java; mend that or take cider"),
    ],
)
def test_a_resumed_run_keeps_its_way_of_scoring(
    asked: str, before: str | None, trouble: str | None, outcome: bool | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CaptionScorer, "why_not_java", lambda scorer: trouble)
    if isinstance(outcome, bool):
        assert scores_plainly(CaptionScorer(), asked, before) == outcome
    else:
        with pytest.raises(ValueError, match=outcome):
            scores_plainly(CaptionScorer(), asked, before)


def test_a_checkpoint_says_how_long_captions_are(data: Path, tmp_path: Path) -> None:
    task = build(data)
    assert task.steps_per_epoch == 2
    task.save_extras(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.build.read_weights", lambda path: task.state_dict() | {})
        sections = {"data": {"manifest": "no_such_file.jsonl", "test_manifest": "captions.jsonl"}}
        other = CaptionTask(config("caption", data, checkpoint=str(tmp_path), **sections), CPU)
    assert evaluate(other, other.config, CPU, final=True)["generation"]["max_tokens"] == task.longest_caption()


def test_captions_cannot_be_longer_than_the_model(data: Path) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.max_tokens: 25 is more than the 24 tokens of"):
        build(data, evaluation={"max_tokens": 25})


def test_a_test_set_that_cannot_be_scored_is_refused_before_training(data: Path) -> None:
    task = build(data)
    task._splits["test"] = replace(
        task.split("test"), annotations=replace(task.split("test").annotations, labelled=False)
    )
    with pytest.raises(ValueError, match="nothing can be scored"):
        task.build_train_loader()
