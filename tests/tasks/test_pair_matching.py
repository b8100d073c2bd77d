"""Reranking reads each text once where the model allows it, and scores pairs as if it had read it for every video."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.load import from_dict
from configs.schema import RetrievalConfig
from engine.loop import evaluate
from models.protocols import StateMatcher
from models.umt.text import SplitBert
from tasks import pair_matching, retrieval
from tasks.retrieval import RetrievalTask
from tests.models.tiny import randomise
from tests.tiny_runs import config as config_of_testa, settings, write_data

CPU = torch.device("cpu")
CAPTIONS = [1, 2, 1, 3, 1]
MODEL: dict[str, Any] = {
    "name": "umt", "depth": 2, "width": 16, "heads": 2, "patch_size": 8, "pooling": "all", "embed_dim": 8,
    "text": {
        "tokenizer": "from_data", "vocab_size": 200, "depth": 3, "width": 16, "heads": 2, "intermediate": 32,
        "max_positions": 40, "dropout": 0.0, "fusion_layer": 2,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), CAPTIONS)


class NeverReused:
    """A protocol that no model has."""


def scores(root: Path, patch: pytest.MonkeyPatch) -> tuple[list[Any], int]:
    """The scores of all pairs in both directions, and how many texts were read alone or for a pair."""
    config = from_dict(
        RetrievalConfig,
        {
            **settings("retrieval", root, output_dir=str(root / "run")),
            "model": MODEL,
            "aggregation": {"reducer": "saliency", "tokens_per_block": [8]},
            "objective": {"losses": ["vtc", "vtm"], "queue_size": 0, "momentum": 0.0, "alpha": 0.0},
            "evaluation": {"rerank": 3, "rerank_batch_size": 2, "rerank_rule": "logit"},
        },
        "test",
    )
    torch.manual_seed(0)
    task = RetrievalTask(config, CPU)
    randomise(task.model)
    task.eval()

    texts_read: list[int] = []
    read = SplitBert.read

    def counted(bert: SplitBert, ids: torch.Tensor, *arguments: Any) -> torch.Tensor:
        texts_read.append(len(ids))
        return read(bert, ids, *arguments)

    found: list[Any] = []
    ranks_of = retrieval.ranks_of

    def recorded(directions: Any, score_of: Any) -> Any:
        if not found:
            found.extend(score(slice(None)) for score in score_of)
        return ranks_of(directions, score_of)

    with patch.context() as inner:
        inner.setattr(SplitBert, "read", counted)
        inner.setattr(retrieval, "ranks_of", recorded)
        evaluate(task, task.config, CPU, final=True)
    return found, sum(texts_read)


def test_each_text_is_read_once_and_scores_are_the_same(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reused, few = scores(data, monkeypatch)
    assert few == 2 * sum(CAPTIONS)  # for its embedding, and for its states

    monkeypatch.setattr(pair_matching, "TOKENS_AT_ONCE", 10)
    in_blocks, as_few = scores(data, monkeypatch)
    assert as_few == few

    monkeypatch.setattr(pair_matching, "StateMatcher", NeverReused)
    each, many = scores(data, monkeypatch)
    num_pairs = (each[0] > -100).sum()
    assert many == sum(CAPTIONS) + np.maximum(each[0] > -100, each[1].T > -100).sum() > few
    assert num_pairs == 3 * sum(CAPTIONS)
    for direction in range(2):
        np.testing.assert_allclose(reused[direction], each[direction], atol=1e-5)
        np.testing.assert_allclose(in_blocks[direction], each[direction], atol=1e-5)


def test_a_model_that_mixes_text_and_video_in_every_layer_matches_as_before(data: Path) -> None:
    task = RetrievalTask(config_of_testa("retrieval", data), CPU)
    assert not isinstance(task.model, StateMatcher)
