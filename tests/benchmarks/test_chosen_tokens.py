"""The benchmark of reranking with a share of the tokens: what it scores is what evaluation scores."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.chosen_tokens import quality, times
from benchmarks.chosen_tokens.__main__ import print_quality
from configs.models.umt import SplitTextConfig, UMTConfig
from configs.schema import AggregationConfig, VideoConfig
from engine.loop import evaluate
from models.umt.build import RetrievalModel
from tasks.chosen_tokens import TokenShare
from tasks.retrieval import RetrievalTask
from tests.models.tiny import randomise
from tests.tiny_runs import config, write_data

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), [1, 2, 1, 3, 1, 1])


def build(root: Path, **evaluation: Any) -> RetrievalTask:
    task = RetrievalTask(config("retrieval", root, evaluation={"rerank": 4, **evaluation}), CPU)
    torch.manual_seed(1)
    randomise(task.model)
    return task.eval()


@pytest.mark.parametrize("way", ["all", "spread", "text"])
def test_metrics_are_those_of_an_evaluation(data: Path, way: str) -> None:
    settings = {} if way == "all" else {"rerank_tokens": 0.5, "rerank_choice": way}
    task = build(data, **settings)
    encoded = quality.encode(task)
    found = quality.measure(task, encoded, way, 1.0 if way == "all" else 0.5, ["logit_plus_cosine"])
    expected = evaluate(task, task.config, CPU, final=True)["metrics"]
    for name, value in found["logit_plus_cosine"].items():
        assert value == pytest.approx(expected[name])
    for name, value in quality.by_cosine(encoded).items():
        assert value == pytest.approx(expected[f"{name}_cosine"])


def test_controls_choose_as_many_tokens(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = build(data)
    encoded = quality.encode(task)
    texts, tokens = encoded.embeddings[:, 0].argsort(), encoded.tokens[0]
    places = {
        way: quality.matcher_of(task, encoded, way, 0.25).chosen_tokens(tokens, texts)
        for way in ("text", *quality.CONTROLS)
    }
    assert len({tuple(of_way.shape) for of_way in places.values() if of_way is not None}) == 1
    most = round(0.25 * tokens.shape[1])
    assert places["first"] is not None and places["first"].tolist() == [list(range(most))] * len(texts)
    assert places["random"] is not None and len({tuple(row) for row in places["random"].tolist()}) > 1

    # Another text's tokens are those that this other text chooses for itself.
    half = len(texts) // 2
    others = quality.matcher_of(task, encoded, "text", 0.25).chosen_tokens(tokens, (texts + half) % len(texts))
    assert places["other text"] is not None and others is not None and torch.equal(places["other text"], others)

    monkeypatch.setattr(quality, "load", lambda checkpoint, overrides: task)
    rows = print_quality([Path("a"), Path("b")], [])
    assert len(rows) == 2 * (2 + 3 * 5)


def test_times_of_a_small_model() -> None:
    text = SplitTextConfig(depth=2, width=16, heads=2, intermediate=16, fusion_layer=1, max_positions=80)

    def make() -> RetrievalModel:
        model = UMTConfig(depth=1, width=16, heads=2, pooling="all", text=text)
        return RetrievalModel(model, VideoConfig(num_frames=1, image_size=16), AggregationConfig())

    ways = [TokenShare(), TokenShare(0.5), TokenShare(0.5, "text")]
    rows = times.measure(times.Video(make, 40), ways, num_texts=3, rounds=2)
    assert [(row["share"], row["choice"]) for row in rows] == [(1.0, "spread"), (0.5, "spread"), (0.5, "text")]
    assert all(0 < row["least"] <= row["ms"] <= row["most"] for row in rows)
