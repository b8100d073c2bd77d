"""A system that no room of the house knows: six files and five lines in literal tables, and all of the house works.

What it trains, evaluates, finds and costs is compared with the same computed plainly.
"""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ruamel.yaml import YAML

from configs import schema
from configs.load import load, load_any
from configs.schema import CONFIG_CLASSES, RetrievalConfig
from engine.checkpoint_folder import read_weights
from engine.interruption import SAVED
from inference.api import TrainedModel, load_model
from inference.features.extract import ExtractionRequest, run as extract
from inference.pictures.trace import trace_video
from inference.search.index import VideoIndex
from inference.search.searcher import Searcher
from models import systems
from models.protocols import DualEncoder
from models.systems import System
from tasks import reranking_rules
from tasks.base import PairTask
from tasks.build import build_model
from tasks.objectives import table
from tests.integration.runs import files_below, losses_of, metrics_of, results_of, start, weights_of
from tests.tiny_runs import FRAMES, IMAGE, caption, write_data
from tests.toy.config import MarginConfig, ToyConfig
from tests.toy.cost import count
from tests.toy.model import ToyModel
from tests.toy.reranking import RULE
from tests.toy.weights import COUNTER, our_name

NUM_VIDEOS, CAPTIONS, RERANKED = 8, 2, 3
KEEP = "aggregation.reducer=tome", "aggregation.keep=0.375"
SETTINGS: dict[str, Any] = {
    "task": "retrieval",
    "model": {"name": "toy"},
    "objective": {"name": "margin"},
    "video": {"num_frames": FRAMES, "image_size": IMAGE},
    "optim": {"lr": 3e-2},
    "train": {"batch_size": 4, "max_epochs": 10, "eval_every": 10, "workers": 0, "log_every": 1},
    "evaluation": {"rerank": RERANKED, "rerank_rule": "similarity_times_odds"},
}


@pytest.fixture(scope="module", autouse=True)
def in_the_tables() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(schema.MODELS, "toy", ToyConfig)
        patch.setitem(schema.PAIR_OBJECTIVES, "margin", MarginConfig)
        patch.setitem(table.OBJECTIVES, "margin", "tests.toy.objective:MarginObjective")
        patch.setitem(reranking_rules.RULES, "similarity_times_odds", RULE)
        toy = System(
            build="tests.toy.model:build_model",
            tokenizer="models.parts.tokenizer",
            weights="tests.toy.weights:FORMATS",
            cost="tests.toy.cost:count",
        )
        patch.setitem(systems.SYSTEMS, "toy", toy)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("toy"), [CAPTIONS] * NUM_VIDEOS)


def write_config(root: Path, folder: Path, **sections: Any) -> Path:
    path = root / f"{folder.name}.yaml"
    settings = {**SETTINGS, "data": {"root": str(root)}, "output_dir": str(folder), **sections}
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(settings, file)
    return path


@pytest.fixture(scope="module")
def trained(root: Path) -> Path:
    """The folder of a whole run."""
    folder = root / "whole"
    assert start("train_retrieval", "--config", write_config(root, folder)) == 0
    return folder


@pytest.fixture(scope="module")
def model(trained: Path) -> TrainedModel:
    return load_model(trained / "checkpoint_best")


def videos_of(root: Path) -> list[Path]:
    return [root / "videos" / f"{number}.mp4" for number in range(NUM_VIDEOS)]


def captions_of() -> list[str]:
    return [caption(video, number) for video in range(NUM_VIDEOS) for number in range(CAPTIONS)]


def test_it_trains(trained: Path) -> None:
    losses = losses_of(trained)
    assert all(line.keys() == {"loss", "loss_margin", "loss_judge"} for line in losses)
    first, last = ([line["loss_margin"] for line in part] for part in (losses[:4], losses[-4:]))
    assert sum(last) < 0.5 * sum(first)
    chance = 100 / NUM_VIDEOS
    assert results_of(trained)["metrics"]["t2v_r1_cosine"] > 2 * chance
    weights = weights_of(trained / "checkpoint_last")
    assert weights["objectives.centre"].abs().max() > 0 and "model.layers.1.mix.weight" in weights


def test_it_resumes_to_the_bit_after_a_signal(root: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "interrupted"
    config = write_config(root, folder)
    begin_step = PairTask.begin_step

    def begin_interrupted(task: PairTask, step: int, *arguments: Any) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        begin_step(task, step, *arguments)

    monkeypatch.setattr(PairTask, "begin_step", begin_interrupted)
    assert start("train_retrieval", "--config", config) == SAVED
    state = json.loads((folder / "checkpoint_last" / "state.json").read_text())
    assert (state["step"], state["epoch"], state["step_in_epoch"]) == (6, 1, 2)

    monkeypatch.setattr(PairTask, "begin_step", begin_step)
    assert start("train_retrieval", "--config", config) == 0
    for name in ("model.safetensors", "optimizer.safetensors", "random.json"):
        own, whole = ((run / "checkpoint_last" / name).read_bytes() for run in (folder, trained))
        assert own == whole, name
    assert metrics_of(folder) == metrics_of(trained)


def plain_ranks(scores: NDArray, is_own: NDArray) -> NDArray:
    """How many of each row do not score less than the best of its own."""
    best = np.where(is_own, scores, -np.inf).max(axis=1, keepdims=True)
    return 1 + ((scores >= best) & ~is_own).sum(axis=1)


def test_its_evaluation_reranks_by_its_own_rule(root: Path, trained: Path, model: TrainedModel) -> None:
    """From the API's embeddings and matches, pair by pair."""
    captions = captions_of()
    similarity = (model.encode_text(captions) @ model.encode_video(videos_of(root)).T).numpy()
    odds = np.zeros_like(similarity)
    for column, video in enumerate(videos_of(root)):
        matches = model.match(video, captions)
        assert isinstance(matches, list)
        odds[:, column] = [match.probability / (1 - match.probability) for match in matches]

    metrics = results_of(trained)["metrics"]
    is_own = np.arange(len(captions))[:, None] // CAPTIONS == np.arange(NUM_VIDEOS)
    directions = {"t2v": (similarity, odds, is_own), "v2t": (similarity.T, odds.T, is_own.T)}
    for direction, (cosine, own_odds, own) in directions.items():
        scores = np.empty_like(cosine)
        for row in range(len(cosine)):
            best = np.argsort(-cosine[row], kind="stable")[:RERANKED]
            scores[row] = cosine[row] - 10
            scores[row, best] = (1 + cosine[row, best]) * own_odds[row, best]
        assert metrics[f"{direction}_r1"] == pytest.approx(100 * (plain_ranks(scores, own) == 1).mean())
        assert metrics[f"{direction}_r1_cosine"] == pytest.approx(100 * (plain_ranks(cosine, own) == 1).mean())
        assert metrics[f"{direction}_median_rank"] == np.median(plain_ranks(scores, own))


def own_odds(model: TrainedModel, video: str, text: str) -> float:
    match = model.match(video, text)
    assert not isinstance(match, list)
    return match.probability / (1 - match.probability)


def test_another_rule_ranks_by_its_own_scores(root: Path, trained: Path, model: TrainedModel) -> None:
    """The rule `logit`, from the API's matches: candidates by their logits, all others behind them and equal."""
    folder = root / "by_logit"
    words = [f"checkpoint={trained / 'checkpoint_best'}", f"output_dir={folder}", "evaluation.rerank_rule=logit"]
    assert start("train_retrieval", "--evaluate", *words) == 0

    captions, videos = captions_of(), videos_of(root)
    cosine = (model.encode_text(captions) @ model.encode_video(videos).T).numpy()
    scores = np.full(cosine.shape, -100.0)
    for column, video in enumerate(videos):
        matches = model.match(video, captions)
        assert isinstance(matches, list)
        for row, match in enumerate(matches):
            if column in np.argsort(-cosine[row], kind="stable")[:RERANKED]:
                scores[row, column] = match.logit

    ranks = plain_ranks(scores, np.arange(len(captions))[:, None] // CAPTIONS == np.arange(NUM_VIDEOS))
    metrics = results_of(folder)["metrics"]
    assert metrics["t2v_r1"] == pytest.approx(100 * (ranks == 1).mean())
    assert metrics["t2v_median_rank"] == np.median(ranks)
    assert metrics["t2v_r1_cosine"] == results_of(trained)["metrics"]["t2v_r1_cosine"]


def test_it_is_searched_and_its_features_are_extracted(root: Path, trained: Path, model: TrainedModel) -> None:
    request = ExtractionRequest(
        source=root / "videos", checkpoint=str(trained / "checkpoint_best"), out=root / "features", tokens=True
    )
    assert extract(request)["encoded"] == NUM_VIDEOS
    embeddings = np.load(root / "features" / "features" / "embeddings.npy")
    tokens = np.load(root / "features" / "features" / "tokens.npy")
    assert tokens.shape == (NUM_VIDEOS, FRAMES * (IMAGE // 8) ** 2, 12)
    own = model.encode_video(videos_of(root))
    assert isinstance(own, torch.Tensor)
    np.testing.assert_allclose(embeddings, own.numpy(), atol=1e-6)
    assert np.linalg.norm(embeddings, axis=1).max() < 0.999  # nothing has made them unit vectors

    VideoIndex.update(ExtractionRequest(source=root / "videos", checkpoint=request.checkpoint, out=root / "index"))
    searcher = Searcher.open(root / "index")
    text = captions_of()[4]
    for rerank in (0, NUM_VIDEOS):
        hits = searcher.query(text, top=NUM_VIDEOS, rerank=rerank, frames=2)
        found = [int(Path(hit.video).stem) for hit in hits]
        cosine = embeddings @ model.encode_text(text).numpy()
        np.testing.assert_allclose([hit.cosine for hit in hits], cosine[found], atol=1e-6)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert all(hit.probability is not None and len(hit.frames) == 2 for hit in hits)
        # Reranked, a score is the toy's own rule of the pair, not the cosine plus the logit of other systems.
        scores = [hit.cosine if not rerank else (1 + hit.cosine) * own_odds(model, hit.video, text) for hit in hits]
        assert [hit.score for hit in hits] == pytest.approx(scores, rel=1e-4)
    assert hits[0].match_logit == pytest.approx(model.match(hits[0].video, text).logit, abs=1e-5)  # type: ignore[union-attr]


def test_its_reducer_is_counted_compared_and_seen(root: Path, trained: Path) -> None:
    """With three eighths of the tokens it costs less, has results of its own, and shows which cells became one."""
    config = load(RetrievalConfig, root / "whole.yaml", [])
    reduced = load(RetrievalConfig, root / "whole.yaml", list(KEEP))
    costs = [systems.count(one.model, one.video, one.aggregation) for one in (config, reduced)]
    assert [cost.tokens for cost in costs] == [64, 24] and costs[1].executed_gmacs < costs[0].executed_gmacs
    assert costs[0].executed_gmacs == 2 * 64 * 12**2 / 1e9
    assert costs == [count(config.model, one.video, one.aggregation) for one in (config, reduced)]  # type: ignore[arg-type]

    folder = root / "reduced"
    words = [f"checkpoint={trained / 'checkpoint_best'}", f"output_dir={folder}", *KEEP]
    assert start("train_retrieval", "--evaluate", *words) == 0
    assert results_of(folder)["config"]["aggregation"]["keep"] == 0.375

    small = load_model(trained / "checkpoint_best", *KEEP)
    pixels = small.read_video(videos_of(root)[0])
    trace = trace_video(small.model, pixels)
    assert trace.tokens.shape == (24, 12) and len(trace.blocks) == 2
    sizes = np.bincount(trace.origins.ravel(), minlength=24)
    assert sizes.sum() == 64 and sizes.min() >= 1
    encoded = small.encode_tokens(videos_of(root)[0])
    np.testing.assert_array_equal(encoded.size.numpy(), sizes)


def published_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A published file of the same weights."""
    published = {COUNTER: torch.tensor(7)}
    for prefix, parts in (
        ("eye.rgb", {"weight": "colour.weight", "bias": "colour.bias"}),
        ("eye.stack.0", {"w": "layers.0.mix.weight", "b": "layers.0.mix.bias"}),
        ("eye.stack.1", {"w": "layers.1.mix.weight", "b": "layers.1.mix.bias"}),
        ("ear.table", {"weight": "words.weight"}),
        ("eye.out", {"weight": "video_head.weight"}),
        ("ear.out", {"weight": "text_head.weight"}),
        ("pair.judge", {"weight": "judge.weight", "bias": "judge.bias"}),
    ):
        for name, own in parts.items():
            assert our_name(f"{prefix}.{name}") == own
            published[f"{prefix}.{name}"] = weights[f"model.{own}"]
    return published


def test_it_starts_from_its_own_file(root: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = root / "toy_published.pth", root / "from_file"
    best = trained / "checkpoint_best"
    torch.save({"model": published_of(read_weights(best))}, file)
    (root / "tokenizer").symlink_to(best / "tokenizer")  # a file's own vocabulary lies beside it
    config = write_config(root, folder)

    assert start("train_retrieval", "--evaluate", "--config", config, f"checkpoint={file}") == 0
    assert results_of(folder)["metrics"] == results_of(trained)["metrics"]
    said = capsys.readouterr().err
    assert "the toy's published file" in said and "steps: it is no weight" in said

    torch.save({"model": {"visual_encoder.blocks.0.x": torch.zeros(1)}}, file)
    assert start("train_retrieval", "--evaluate", "--config", config, f"checkpoint={file}") == 2
    assert "is no checkpoint of this project nor the toy's" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("model.name=tyo", r"model\.name: found .tyo., expected one of testa, .*toy"),
        ("objective.name=margins", r"objective\.name: found .margins., expected one of momentum, .*margin"),
        ("evaluation.rerank_rule=odds", r"evaluation\.rerank_rule: found odds, expected one of .*times_odds"),
        ("aggregation.reducer=prune", r"aggregation\.reducer: toy takes none and tome"),
        ("train.batch_size=1", r"train\.batch_size: a margin needs a second pair"),
        ("model.heads=3", r"model\.heads: unknown key"),
    ],
)
def test_what_it_has_not_is_refused_in_one_line(
    root: Path, tmp_path: Path, override: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(root, tmp_path / "refused")
    assert start("train_retrieval", "--config", config, override) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(error, line), line
    assert not (tmp_path / "refused").exists()


def test_without_its_lines_nothing_knows_it(
    root: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = files_below(trained)
    for entries, name in (
        (schema.MODELS, "toy"), (schema.PAIR_OBJECTIVES, "margin"), (systems.SYSTEMS, "toy"),
        (table.OBJECTIVES, "margin"), (reranking_rules.RULES, "similarity_times_odds"),
    ):  # fmt: skip
        monkeypatch.delitem(entries, name)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model\.name: found .toy., expected one of testa"):
        load_any(CONFIG_CLASSES, root / "whole.yaml", [])
    with pytest.raises(ValueError, match=r"config\.yaml: model\.name: found .toy."):
        load_model(trained / "checkpoint_best")
    assert files_below(trained) == before


def test_its_model_has_the_protocol(root: Path) -> None:
    config = load(RetrievalConfig, root / "whole.yaml", [])
    model = build_model(config, [])
    assert isinstance(model, ToyModel) and isinstance(model, DualEncoder)
