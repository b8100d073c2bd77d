"""What an evaluation costs: texts tokenized once, hardly padded, tokens on the disk, no array of all pairs."""

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.loop import evaluate
from tasks import retrieval
from tasks.metrics import retrieval as ranking
from tasks.metrics.relation import Relation
from tasks.pair_matching import PairMatcher
from tasks.retrieval import RetrievalTask
from tasks.token_store import TokenStore
from tests.models.tiny import randomise
from tests.tasks.metrics import dense
from tests.tiny_runs import caption, config, write_data

CAPTIONS = [1, 2, 1, 3, 2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), CAPTIONS)


def build(root: Path, output_dir: Path, **evaluation: Any) -> RetrievalTask:
    task = RetrievalTask(config("retrieval", root, evaluation=evaluation, output_dir=str(output_dir)), CPU)
    torch.manual_seed(1)
    randomise(task.model)
    return task


def test_texts_are_tokenized_once_and_matched_with_those_of_like_length(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = build(data, tmp_path, rerank=100, rerank_batch_size=4)
    tokenized: list[str] = []
    padded: list[Tensor] = []
    tokenize, match = task.tokenize, task.model.match
    monkeypatch.setattr(task, "tokenize", lambda texts: (tokenized.extend(texts), tokenize(texts))[1])
    monkeypatch.setattr(task.model, "match", lambda *given: (padded.append(given[2]), match(*given))[1])
    evaluate(task, task.config, CPU, final=True)
    assert tokenized == [caption(video, n) for video in range(5) for n in range(CAPTIONS[video])]
    lengths = [mask.sum(dim=1).tolist() for mask in padded]
    assert all(mask.shape[1] == max(batch) for mask, batch in zip(padded, lengths, strict=True))
    assert [len(batch) for batch in lengths] == [4, 4, 1] * 5
    for video in range(5):
        of_video = sum(lengths[3 * video : 3 * video + 3], [])
        assert of_video == sorted(of_video) and of_video[0] < of_video[-1]


def test_tokens_lie_below_the_output_folder_while_pairs_are_scored(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[Path, int]] = []
    original = TokenStore.__init__
    monkeypatch.setattr(
        TokenStore, "__init__", lambda store, *given: (opened.append(given), original(store, *given))[1]
    )
    task = build(data, tmp_path / "run")
    evaluate(task, task.config, CPU, final=True)
    assert opened == [(tmp_path / "run", 5)] and list((tmp_path / "run").iterdir()) == []
    monkeypatch.setattr("tasks.token_store.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match="output_dir: the tokens of 5 videos need"):
        evaluate(task, task.config, CPU, final=True)
    assert list((tmp_path / "run").iterdir()) == []


def test_no_array_of_all_texts_and_videos_is_made(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2000 texts and videos one of booleans would be 4 MB, one of scores 16 MB."""
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", 2**14)
    task, number, most = build(data, tmp_path, rerank=5), 2000, 5
    rng = np.random.default_rng(0)
    texts, videos = (unit / np.linalg.norm(unit, axis=1, keepdims=True) for unit in rng.normal(size=(2, number, 8)))
    encoded = retrieval.EncodedVideos(videos, list(range(number)), [0] * number)
    matched: list[int] = []

    def match(_: PairMatcher, tokens: Any, chosen: NDArray) -> NDArray:
        matched.append(len(chosen))
        return np.sin(chosen + 7.0 * tokens).astype(np.float32)

    monkeypatch.setattr(PairMatcher, "match", match)
    tracemalloc.start()
    directions = ranking.both_directions(texts, videos, Relation.of_one_each(np.arange(number), number))
    store = SimpleNamespace(read=float)
    scores = task._reranked(directions, None, encoded, store)  # type: ignore[arg-type]
    found = retrieval.metrics(retrieval.ranks_of(directions, scores))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5e6, peak
    cosine = (texts @ videos.T).astype(np.float32)
    assert sum(matched) == (dense.is_on_shortlist(cosine, most) | dense.is_on_shortlist(cosine.T, most).T).sum()
    logits = np.sin(np.arange(number)[:, None] + 7.0 * np.arange(number)).astype(np.float32)
    assert found == dense.both_directions(*dense.rescored(cosine, logits, most), np.arange(number))
