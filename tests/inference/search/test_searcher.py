"""What a search finds is what training's evaluation ranks first, by brute force and by its own code."""

import json
import re
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import inference.search.searcher as searcher_module
from inference.api import load_model
from inference.features.sources import Clip
from inference.search.exact import ROWS_AT_ONCE, Vectors
from inference.search.index import VideoIndex
from inference.search.scale import EVERYDAY_CAPTIONS, MAY_DESCRIBE
from inference.search.searcher import Hit, Searcher, in_order, nothing_matches
from inference.search.table import VideoTable
from scripts.search import main
from tasks.metrics.retrieval import Direction
from tests.integration.runs import start, train
from tests.tiny_runs import write_data

NUM_VIDEOS = 8
ENCODED_BY: dict[str, Any] = {"checkpoint": "there", "config": None, "overrides": []}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), [1, 2] + [1] * (NUM_VIDEOS - 2))


@pytest.fixture(scope="module")
def checkpoint(root: Path) -> Path:
    trained: dict[str, Any] = {
        "optim": {"lr": 5e-3, "clip_norm": 1.0},
        "train": {"max_epochs": 4, "batch_size": 4, "eval_every": 4},
    }
    return train(root, root / "run", **trained) / "checkpoint_best"


@pytest.fixture(scope="module")
def folder(root: Path, checkpoint: Path) -> Path:
    """An index of all videos."""
    made = root / "index"
    with pytest.raises(SystemExit) as stop:
        main(["index", str(root / "videos"), "--checkpoint", str(checkpoint), "--index", str(made), "--workers", "0"])
    assert stop.value.code == 0
    return made


@pytest.fixture(scope="module")
def searcher(folder: Path) -> Searcher:
    return Searcher.open(folder)


def captions(root: Path) -> list[str]:
    lines = (root / "captions.jsonl").read_text().splitlines()
    return [caption for line in lines for caption in json.loads(line)["caption"]]


def made_index(embeddings: np.ndarray) -> VideoIndex:
    """An index of videos that are nowhere."""
    clips = [Clip(f"/videos/{row}.mp4", None, None, 1, 1) for row in range(len(embeddings))]
    table = VideoTable.from_rows((clip.row for clip in clips), {}, None)
    return VideoIndex(Path("/index"), table, Vectors(embeddings), ENCODED_BY)


def unit_rows(count: int, width: int) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((count, width), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_search_of_100_000_videos_takes_less_than_a_second(tmp_path: Path) -> None:
    """Of this process's own time: what others do on the machine meanwhile does not count."""
    np.save(tmp_path / "embeddings.npy", unit_rows(100_000, 256))
    index = made_index(np.load(tmp_path / "embeddings.npy", mmap_mode="r"))
    begun = time.process_time()
    rows, cosines = index.search(index.embeddings[77_777], 100)
    assert time.process_time() - begun < 1
    assert rows[0] == 77_777 and cosines[0] == pytest.approx(1, abs=1e-6) and len(set(rows.tolist())) == 100


@pytest.mark.parametrize("most", [1, 7, 10_000])
def test_a_search_equals_sorting_all_videos(most: int) -> None:
    embeddings = unit_rows(ROWS_AT_ONCE + 5, 6)
    embeddings[-1] = embeddings[3]  # of equal ones the first comes first, though another part of the array holds it
    text = embeddings[3]
    rows, cosines = made_index(embeddings).search(text, most)
    by_loop = [float(np.dot(row.astype(np.float64), text.astype(np.float64))) for row in embeddings]
    expected = sorted(range(len(by_loop)), key=lambda row: (-np.float32(by_loop[row]), row))[:most]
    assert rows.tolist() == expected
    np.testing.assert_allclose(cosines, [by_loop[row] for row in expected], atol=1e-6)
    assert cosines.dtype == np.float32


@pytest.mark.parametrize("rerank", [3, NUM_VIDEOS])
def test_videos_are_ranked_as_evaluation_reranks_them(
    root: Path, checkpoint: Path, searcher: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rerank: int
) -> None:
    scores: list[np.ndarray] = []
    best_ranks = Direction.best_ranks

    def seen(direction: Direction, tile: slice, by: np.ndarray) -> np.ndarray:
        scores.extend([by] if direction.name == "t2v" else [])
        return best_ranks(direction, tile, by)

    monkeypatch.setattr(Direction, "best_ranks", seen)
    asked = (f"checkpoint={checkpoint}", f"evaluation.rerank={rerank}", f"output_dir={tmp_path}")
    assert start("train_retrieval", "--evaluate", *asked) == 0
    reranked, cosine = scores
    for number, caption in enumerate(captions(root)):
        hits = searcher.query(caption, NUM_VIDEOS, rerank, frames=0)
        order = np.argsort(-reranked[number], kind="stable")
        assert [hit.video for hit in hits] == [str(root / "videos" / f"{video}.mp4") for video in order]
        assert [hit.match_logit is not None for hit in hits] == [place < rerank for place in range(NUM_VIDEOS)]
        np.testing.assert_allclose([hit.cosine for hit in hits], cosine[number, order], atol=1e-5)
        expected = np.where(np.arange(NUM_VIDEOS) < rerank, reranked[number, order], cosine[number, order])
        np.testing.assert_allclose([hit.score for hit in hits], expected, atol=1e-4)


def test_what_is_not_said_is_as_much_as_there_is_to_rerank(root: Path, searcher: Searcher) -> None:
    assert searcher.query(captions(root)[0], 3) == searcher.query(captions(root)[0], 3, 3, 3)
    everything = searcher.query(captions(root)[0], 100, 0, frames=0)
    assert {hit.video for hit in everything} == {str(path) for path in (root / "videos").iterdir()}


def test_hits_keep_their_place_without_a_logit() -> None:
    def hit(name: str, score: float, match_logit: float | None) -> Hit:
        return Hit(name, None, None, score, 0.5, match_logit)

    found = in_order([hit("a", 1.0, 0.5), hit("gone", 0.5, None), hit("b", 3.0, 2.5), hit("c", 2.0, 1.5)])
    assert [hit.video for hit in found] == ["b", "gone", "c", "a"]


def test_a_video_that_is_gone_is_listed_where_its_cosine_puts_it(
    root: Path, checkpoint: Path, folder: Path, searcher: Searcher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = captions(root)[4]
    by_cosine = searcher.query(text, NUM_VIDEOS, 0, frames=0)
    gone = Path(by_cosine[1].video)
    gone.rename(tmp_path / "elsewhere.mp4")
    try:
        hits = searcher.query(text, 3, 6)
        more = searcher.query(text, 1, 6, frames=0)
    finally:
        (tmp_path / "elsewhere.mp4").rename(gone)
    assert asdict(hits[1]) == asdict(by_cosine[1]) | {"problem": hits[1].problem, "probability": None}
    assert hits[1].problem == f"{gone}: cannot be read (no such file); give another file"
    assert [hit.problem for hit in (hits[0], hits[2], *more)] == [None] * 3
    assert hits[0].frames and hits[2].match_logit is not None
    assert caplog.messages == [hits[1].problem] * 2  # also where it is not among those that are listed


def test_without_a_matching_head_videos_are_ranked_by_cosine(root: Path, tmp_path: Path) -> None:
    contrast: dict[str, Any] = {"objective": {"losses": ["vtc"]}, "evaluation": {"rerank": 0}}
    run = train(root, tmp_path / "run", train={"max_epochs": 1, "batch_size": 4}, **contrast)
    given = ["--checkpoint", str(run / "checkpoint_best"), "--index", str(tmp_path / "index"), "--workers", "0"]
    with pytest.raises(SystemExit):
        main(["index", str(root / "videos"), *given])
    searcher = Searcher.open(tmp_path / "index")
    hits = searcher.query(captions(root)[0], 3, frames=1)
    rows, cosines = searcher.index.search(searcher.model.encode_text(captions(root)[0]).numpy(), 3)
    assert [hit.video for hit in hits] == [searcher.index.clips[row].video for row in rows]
    assert [(hit.score, hit.cosine, hit.match_logit, len(hit.frames)) for hit in hits] == [
        (cosine, cosine, None, 1) for cosine in cosines.tolist()
    ]
    with pytest.raises(ValueError, match=r"no matching head to rerank with; give --rerank 0.*one fine-tuned for"):
        searcher.query("red", rerank=2)


def test_queries_that_mean_nothing_are_refused(searcher: Searcher) -> None:
    with pytest.raises(ValueError, match="text to search for is empty"):
        searcher.query("  \n")
    for wrong in ({"top": 0}, {"rerank": -1}, {"frames": -1}):
        with pytest.raises(ValueError, match="must be 1 or more, 0 or more, and 0 or more"):
            searcher.query("a", **wrong)


def test_another_model_than_the_index_was_made_with_is_refused(
    root: Path, checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    index = VideoIndex.open(folder)
    moved = shutil.copytree(checkpoint, tmp_path / "moved")
    assert Searcher.open(folder, str(moved)).query("red", 1)
    with pytest.raises(ValueError, match=r"encoded by other weights or settings.*aggregation\.keep: "):
        Searcher(index, load_model(checkpoint, "aggregation.keep=0.25", device="cpu"))
    Searcher(index, load_model(checkpoint, device="cpu", dtype="bf16"))  # searched on another machine
    other = train(root, tmp_path / "other", train={"max_epochs": 1, "batch_size": 4}, seed=1) / "checkpoint_best"
    with pytest.raises(ValueError, match=r"weights_sha256: .*say with --checkpoint where those are"):
        Searcher.open(folder, str(other))


def test_settings_of_the_index_are_those_of_a_query(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    given = ["index", str(root / "videos"), "data.max_words=2", "--checkpoint", str(checkpoint), "--workers", "0"]
    with pytest.raises(SystemExit):
        main([*given, "aggregation.keep=0.5", "--index", str(tmp_path / "index")])
    searcher = Searcher.open(tmp_path / "index")
    assert searcher.model.config.aggregation.keep == 0.5
    assert searcher.query("red grows falls", frames=0) == searcher.query("red grows turns", frames=0)
    embedding = searcher.model.encode_video(Path(searcher.index.clips[2].video))
    assert isinstance(embedding, torch.Tensor)
    np.testing.assert_allclose(searcher.index.embeddings[2], embedding, atol=2e-6)


def test_what_is_no_index_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no index; make one with"):
        VideoIndex.open(tmp_path)
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    lines = (damaged / "features" / "index.jsonl").read_text().splitlines(keepends=True)
    (damaged / "features" / "index.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(ValueError, match=re.escape(f"{damaged}/features: is damaged (7 videos and 8 embeddings)")):
        VideoIndex.open(damaged)
    (damaged / "features" / "embeddings.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is damaged \(.*remove it and give the same index command again"):
        VideoIndex.open(damaged)
    shutil.copytree(folder, tmp_path / "killed")
    (tmp_path / "killed" / "features").rename(tmp_path / "killed" / "features.old")  # between two renames
    assert len(VideoIndex.open(tmp_path / "killed").clips) == NUM_VIDEOS


def test_probabilities_are_the_matching_heads_or_come_from_the_cosine(
    root: Path, searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = captions(root)[2]
    for hit in searcher.query(text, 5, 3, frames=0):
        match = searcher.model.match(hit.video, text)
        assert hit.probability == (None if hit.match_logit is None else pytest.approx(match.probability, abs=1e-6))

    # Of half of the videos, by hand.
    monkeypatch.setattr(searcher_module, "VIDEOS_MEASURED", NUM_VIDEOS // 2)
    fresh, temperature = Searcher(searcher.index, searcher.model), searcher.model.model.temp.item()
    everyday = searcher.index.embeddings[::2] @ searcher.model.encode_text(EVERYDAY_CAPTIONS).numpy().T
    kept = np.sort(everyday, axis=1)[:, :-MAY_DESCRIBE].astype(np.float64)
    others = np.exp(kept / temperature).sum(axis=1).mean()
    hits = fresh.query(text, NUM_VIDEOS, 0, frames=0)
    for hit in hits:
        own = np.exp(hit.cosine / temperature)
        assert hit.probability == pytest.approx(own / (own + others), rel=1e-4)
    assert nothing_matches(hits) == (max(hit.probability or 0 for hit in hits) < 0.5)


def test_nothing_matches_where_no_probability_reaches_a_half() -> None:
    def hits(*probabilities: float | None) -> list[Hit]:
        return [Hit("a", None, None, 0.5, 0.5, probability=probability) for probability in probabilities]

    assert [nothing_matches(hits(*these)) for these in ((0.2, 0.49), (0.2, 0.5), (None, 0.1), (None,), ())] == [
        *(True, False, True, False, False)
    ]


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("red grows", []),
        ("red, (grows)! * # \n", []),
        ("red  grows\nand falls\tunfamiliarword " * 30, []),
        ("red grows " * 30, ["data.max_words=7"]),
        ("red grows " * 10 + "! ! !", ["data.max_words=20"]),
        ("red " * 22, []),
        ("red " * 23, []),
    ],
)
def test_words_that_are_read_are_counted(checkpoint: Path, text: str, overrides: list[str]) -> None:
    """Against a count of the pieces of each cleaned word, in the room that [CLS] and [SEP] leave."""
    model = load_model(checkpoint, *overrides, device="cpu")
    limit, room, expected = model.config.data.max_words, model.config.model.text.max_positions - 2, 0
    cleaned = re.sub(r'[!"()*#~]', " ", text.lower()).split()
    counted, cut = 0, False
    for word in cleaned:
        ids, _ = model.tokenizer([word], 1000)
        cut = cut or counted == limit or room <= 0
        expected += not cut
        room -= ids.shape[1] - 2
        counted += 1
    assert model.words_read(text) == (expected if cut else len(text.split()), len(text.split()))


def test_words_of_a_question_have_their_own_limit(checkpoint: Path) -> None:
    model = load_model(checkpoint, "model.text.max_positions=24", device="cpu")
    for words, read in ((5, 5), (22, 22), (60, 22)):
        assert model.words_read("red " * words, question=True) == (read, words)
