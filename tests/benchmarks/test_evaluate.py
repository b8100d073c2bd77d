"""The evaluation benchmark: both ways find the same, on data without a text twice, and growth says what was done."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import evaluate
from benchmarks.naive_evaluation import NaiveEvaluation
from benchmarks.settings import Settings
from engine.loop import evaluate as evaluated
from tests.models.tiny import randomise

TINY = (
    *(f"model.{name}" for name in ("depth=2", "width=16", "heads=2", "patch_size=8", "embed_dim=8")),
    *("video.num_frames=8", "video.image_size=32", "aggregation.frames_per_block=1", "aggregation.patches_per_block=2"),
    *(f"model.text.{name}" for name in ("depth=2", "width=16", "heads=2", "intermediate=32", "vocab_size=300")),
)
SETTINGS = Settings(None, TINY, "cpu", 1, 1)


@pytest.mark.parametrize("most", [10, 11, 128])
def test_the_released_codes_way_finds_the_same(tmp_path: Path, most: int) -> None:
    """Of 14 videos, the best 10 or more of each query rescored: recalls say nothing of what comes after them."""
    evaluate.make_data(SETTINGS, tmp_path, [14])
    task = evaluate.make_task(SETTINGS, tmp_path, 14)
    torch.manual_seed(2)
    randomise(task.model)
    task.evaluation = replace(task.evaluation, rerank=most)
    naive = NaiveEvaluation(task)
    counts = evaluate.count_work(task)
    task.fold_for_inference(torch.float32)
    ours = evaluated(task, task.config, task.device, final=True)["metrics"]
    found = naive()
    assert found == {name: ours[name] for name in found} and len(found) == 6
    assert len(set(found.values())) > 3  # of chance and of perfection one would learn nothing
    assert any(found[name] != ours[f"{name}_cosine"] for name in found)
    assert counts["videos_encoded"] == 14
    assert counts["pairs_scored"] == 14 * 14 if most > 14 else 14 * most <= counts["pairs_scored"] < 14 * 14


def test_both_ways_can_be_built_and_called_again_and_again(tmp_path: Path) -> None:
    evaluate.make_data(SETTINGS, tmp_path, [3])
    for way in (evaluate.ours, evaluate.naive):
        work = way(SETTINGS, str(tmp_path), 3)
        assert work() is None and work() is None
    assert list((tmp_path / "run").iterdir()) == []


def test_data_share_files_and_have_no_text_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "NUM_FILES", 4)
    evaluate.make_data(SETTINGS, tmp_path, [3, 40])
    lines = (tmp_path / "40.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert lines[:3] == (tmp_path / "3.jsonl").read_text().splitlines()
    assert len({record["caption"] for record in records}) == len({record["video"] for record in records}) == 40
    assert len({(tmp_path / "videos" / record["video"]).stat().st_ino for record in records}) == 4
    assert min(len(record["caption"].split()) for record in records) > 15


def test_cases_have_a_naive_way_where_there_is_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "NUM_VIDEOS_SMALL", 4)
    configured, small = evaluate.cases(SETTINGS)
    assert "8 videos" in configured.name and "debug model, 4 videos" in small.name and "6 frames" in small.name
    for case, number in ((configured, 8), (small, 4)):
        assert case.naive is not None and case.naive.arguments == case.ours.arguments
        folder = Path(case.ours.arguments["folder"])
        assert len((folder / f"{number}.jsonl").read_text().splitlines()) == case.ours.arguments["num_videos"] == number
    pruned = ("aggregation.reducer=prune", "aggregation.frames_per_block=0")
    (alone,) = evaluate.cases(Settings(evaluate.SMALL, pruned, "cpu", 1, 1))
    assert alone.naive is None


@pytest.mark.usefixtures("in_this_process")
def test_growth_says_what_was_done_for_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Settings(None, (), "cpu", 1, 1)
    rows = evaluate.growth(model, [2, 9])
    assert [row["num_videos"] for row in rows] == [row["videos_encoded"] for row in rows] == [2, 9]
    assert [row["pairs_scored"] for row in rows] == [4, 81]
    assert all(row["seconds"] > 0 and row["peak_bytes"] is None or row["peak_bytes"] > 0 for row in rows)
    assert rows[0].keys() == {"num_videos", "seconds", "peak_bytes", "videos_encoded", "pairs_scored"}
