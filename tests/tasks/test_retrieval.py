"""Evaluation: the same for any batch size and number of processes, each pair once, what is missing is named."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from datasets.annotations import public
from datasets.decode import read_video
from datasets.records import Annotations, VideoTextRecord
from datasets.sampling import uniform
from engine.loop import evaluate
from tasks import retrieval
from tasks.dual_softmax import SUFFIX
from tasks.metrics import retrieval as ranking
from tasks.retrieval import RetrievalTask
from tests.gloo import run_ranks
from tests.models.tiny import randomise
from tests.tasks.metrics import dense
from tests.tiny_runs import FRAMES, IMAGE, caption, config, write_data, written

CAPTIONS = [1, 2, 1, 1, 3, 1, 1, 2]
UNREADABLE, MISSING = 1, 4
READABLE = [video for video in range(len(CAPTIONS)) if video not in (UNREADABLE, MISSING)]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos, of which one is missing and one is no video."""
    root = write_data(tmp_path_factory.mktemp("data"), CAPTIONS)
    (root / "videos" / f"{MISSING}.mp4").unlink()
    (root / "videos" / f"{UNREADABLE}.mp4").write_bytes(b"no video " * 100)
    return root


def build(root: Path, **evaluation: Any) -> RetrievalTask:
    task = RetrievalTask(config("retrieval", root, evaluation=evaluation), CPU)
    torch.manual_seed(1)
    randomise(task.model)
    return task


class Recorder:
    """What an evaluation computed: its scores, how many videos it encoded, and each pair it matched."""

    def __init__(self, task: RetrievalTask, patch: pytest.MonkeyPatch) -> None:
        self.scores: dict[str, tuple[NDArray, NDArray]] = {}
        self.encoded = 0
        self.pairs: list[tuple[float, tuple[int, ...]]] = []
        match, encode_video, ranks_of = task.model.match, task.model.encode_video, retrieval.ranks_of

        def recorded(directions: tuple[ranking.Direction, ranking.Direction], scores: list[retrieval.Score]) -> Any:
            suffix = ("", "_cosine", SUFFIX)[len(self.scores)]
            t2v, v2t = (
                np.concatenate([score(tile) for tile in direction.tiles()])
                for direction, score in zip(directions, scores, strict=True)
            )
            self.scores[suffix] = (t2v, v2t)
            return ranks_of(directions, scores)

        def counted_encode(video: torch.Tensor) -> Any:
            self.encoded += len(video)
            return encode_video(video)

        def counted_match(tokens: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            texts = [tuple(row[kept].tolist()) for row, kept in zip(ids, mask.bool(), strict=True)]
            self.pairs += [(float(tokens.sum()), text) for text in texts]
            return match(tokens, ids, mask)

        patch.setattr(retrieval, "ranks_of", recorded)
        patch.setattr(task.model, "encode_video", counted_encode)
        patch.setattr(task.model, "match", counted_match)


def evaluated(root: Path, batch_size: int, most: int) -> tuple[dict[str, Any], Recorder]:
    """The result of an evaluation and what was computed for it; runs in a rank, too."""
    task = build(root, batch_size=batch_size, rerank=most, rerank_batch_size=3)
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(task, patch)
        result = evaluate(task, task.config, CPU, final=True)
    return result, recorder


def evaluated_in_rank(root: Path, batch_sizes: list[int]) -> list[tuple[Any, ...]]:
    """Each with so small tiles and batches of texts that every rank has some and none has all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "SCORES_AT_ONCE", 13)
        patch.setattr(retrieval, "TEXTS_AT_ONCE", 2)
        results = [evaluated(root, size, most=2) for size in batch_sizes]
    return [(result, recorder.scores, recorder.encoded, recorder.pairs) for result, recorder in results]


def by_hand(root: Path) -> tuple[NDArray, NDArray, NDArray]:
    """Cosines and matching logits (texts, videos), pair by pair, and the video of each text."""
    task = build(root)
    task.eval()

    def choose(length: int) -> NDArray:
        return uniform(FRAMES, length, np.random.default_rng())

    clips = [read_video(str(root / "videos" / f"{video}.mp4"), IMAGE, choose)[None] for video in READABLE]
    texts = [(row, caption(video, n)) for row, video in enumerate(READABLE) for n in range(CAPTIONS[video])]
    cosine, logits = np.zeros((2, len(texts), len(clips)))
    with torch.no_grad():
        for column, clip in enumerate(clips):
            video = task.model.encode_video(clip)
            for row, (_, text) in enumerate(texts):
                ids, mask = task.tokenize([text])
                cosine[row, column] = video.embedding[0] @ task.model.encode_text(ids, mask).embedding[0]
                logits[row, column] = task.model.match(video.tokens, ids, mask)[0, 1]
    return cosine, logits, np.array([row for row, _ in texts])


def test_reranked_scores_are_those_of_all_pairs_where_all_are_reranked(data: Path) -> None:
    cosine, logits, text_video = by_hand(data)
    result, recorder = evaluated(data, batch_size=3, most=100)
    for found, expected in ((recorder.scores[""], cosine + logits), (recorder.scores["_cosine"], cosine)):
        assert np.abs(found[0] - expected).max() < 1e-5 and np.abs(found[1] - expected.T).max() < 1e-5
    scores = cosine + logits
    assert result["metrics"] == pytest.approx(
        dense.both_directions(scores, scores.T, text_video)
        | dense.both_directions(cosine, cosine.T, text_video, "_cosine")
    )
    assert (scores.argmax(axis=1) != cosine.argmax(axis=1)).any()  # it made a difference


def test_the_best_by_cosine_are_rescored_and_stand_before_the_others(data: Path) -> None:
    cosine, logits, _ = by_hand(data)
    _, recorder = evaluated(data, batch_size=8, most=2)
    for found, near, pair in zip(recorder.scores[""], (cosine, cosine.T), (logits, logits.T), strict=True):
        for row in range(len(near)):
            order = np.argsort(-near[row])
            best = sorted(order[:2], key=lambda index: -(pair[row, index] + near[row, index]))
            assert np.argsort(-found[row]).tolist() == [*best, *order[2:]]


@pytest.mark.parametrize("most", [2, 100])
def test_each_video_is_encoded_and_each_pair_scored_once(data: Path, most: int) -> None:
    _, recorder = evaluated(data, batch_size=3, most=most)
    assert recorder.encoded == len(READABLE)
    cosine = recorder.scores["_cosine"][0]
    chosen = np.zeros(cosine.shape, dtype=bool)
    for text in range(len(cosine)):
        chosen[text, np.argsort(-cosine[text])[:most]] = True
    for video in range(cosine.shape[1]):
        chosen[np.argsort(-cosine[:, video])[:most], video] = True
    assert len(recorder.pairs) == len(set(recorder.pairs)) == chosen.sum()
    assert (chosen.sum() < chosen.size) == (most == 2)


def test_without_reranking_nothing_is_matched(data: Path) -> None:
    result, recorder = evaluated_without_reranking(data)
    assert recorder.pairs == []
    metrics = result["metrics"]
    assert len(metrics) == 32 and all(metrics[name] == metrics[f"{name}_cosine"] for name in list(metrics)[:16])


def evaluated_without_reranking(root: Path) -> tuple[dict[str, Any], Recorder]:
    task = build(root, rerank=0)
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(task, patch)
        return evaluate(task, task.config, CPU, final=True), recorder


def test_missing_and_unreadable_videos_are_left_out_counted_and_named(data: Path) -> None:
    result, _ = evaluated(data, batch_size=3, most=100)
    texts = sum(CAPTIONS[video] for video in READABLE)
    assert (result["num_videos"], result["num_texts"], result["num_missing"]) == (len(READABLE), texts, 2)
    missing, unreadable = result["failed"]
    assert missing == {"video": str(data / "videos" / f"{MISSING}.mp4"), "reason": "no such file"}
    assert unreadable["video"] == str(data / "videos" / f"{UNREADABLE}.mp4")
    assert unreadable["reason"] and "\n" not in unreadable["reason"]
    assert (result["dataset"], result["split"]) == (data.name, "captions")


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_batch_size_and_number_of_processes_change_nothing(data: Path, tmp_path: Path, processes: int) -> None:
    """Six of the seven videos can be read: with two ranks and batches of 3 the last batch of one rank is ragged."""
    expected, recorder = evaluated(data, batch_size=3, most=2)
    sizes = [1, 3, 8]
    ranks = run_ranks(processes, evaluated_in_rank, data, sizes) if processes > 1 else [evaluated_in_rank(data, sizes)]
    for runs in zip(*ranks, strict=True):
        for result, scores, _, _ in runs:
            assert written(result, tmp_path) == written(expected, tmp_path)
            assert_same_scores(scores, recorder.scores)
        assert sum(encoded for _, _, encoded, _ in runs) == len(READABLE)
        assert sorted(text for *_, pairs in runs for _, text in pairs) == sorted(text for _, text in recorder.pairs)
        assert min(encoded for _, _, encoded, _ in runs) >= 1


def assert_same_scores(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for suffix in ("", "_cosine"):
        for one, other in zip(found[suffix], expected[suffix], strict=True):
            assert np.abs(one - other).max() < 1e-5


def test_more_processes_than_videos(tmp_path: Path) -> None:
    write_data(tmp_path, [1])
    alone = written(evaluated(tmp_path, batch_size=3, most=2)[0], tmp_path)
    ranks = run_ranks(2, evaluated_in_rank, tmp_path, [3])
    assert [written(runs[0][0], tmp_path) for runs in ranks] == [alone] * 2
    assert alone["metrics"]["t2v_r1"] == 100.0


def test_of_no_readable_video_nothing_can_be_said(tmp_path: Path) -> None:
    write_data(tmp_path, [1, 1], real=False)
    task = build(tmp_path)
    with pytest.raises(ValueError, match="captions.jsonl: none of its 2 videos could be read"):
        evaluate(task, task.config, CPU, final=True)


def test_evaluation_needs_no_training_data(data: Path, tmp_path: Path) -> None:
    """A checkpoint brings its tokenizer, so only the manifest to evaluate on is opened."""
    task = build(data)
    task.save_extras(tmp_path)
    (tmp_path / "model.safetensors").touch()
    root = write_data(tmp_path / "other", [1, 1], manifest="test.jsonl")
    sections = {"data": {"manifest": "no_such_file.jsonl", "eval_manifest": "test.jsonl"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.build.read_weights", lambda path: task.state_dict())
        other = RetrievalTask(config("retrieval", root, checkpoint=str(tmp_path), **sections), CPU)
    result = evaluate(other, other.config, CPU, final=True)
    assert (result["num_videos"], result["split"]) == (2, "test")
    for name, tensor in task.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], tensor)
    with pytest.raises(ValueError, match="no_such_file.jsonl: no such manifest"):
        other.steps_per_epoch  # noqa: B018


def test_fine_tuning_says_when_it_evaluates_on_what_it_trains_on(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="tasks"):
        assert build(data).steps_per_epoch == 2
    assert "no data.eval_manifest: evaluation is on captions.jsonl" in caplog.text


def not_labelled(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[VideoTextRecord]:
    """A public dataset whose test set has nine rows, a video and some text in each, and whose pairs are not known."""
    rows = [VideoTextRecord(str(root / "videos" / f"{video}.mp4"), (caption(video),)) for video in range(len(CAPTIONS))]
    rows = rows[::-1]  # the order of the file, not of names

    def read(dataset: str, folder: Path, split: str, videos: Path) -> Annotations:
        names = tuple(Path(row.video).stem for row in rows)
        return Annotations(rows, dataset, split, "the challenge's files", labelled=split != "test", names=names)

    monkeypatch.setattr(public, "read", read)
    return rows


CHALLENGE = {"dataset": "condensed_movies", "eval_split": "val", "test_split": "test"}


def test_a_test_set_whose_pairs_are_not_public_ends_in_a_submission(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = not_labelled(data, monkeypatch)
    task = RetrievalTask(config("retrieval", data, data=CHALLENGE, evaluation={"rerank": 3}), CPU)
    torch.manual_seed(1)
    randomise(task.model)
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(task, patch)
        result = evaluate(task, task.config, CPU, final=True)
        labelled = evaluate(task, task.config, CPU, final=False)
    assert result["metrics"] == {} and not result["labelled"] and "challenge's server" in result["note"]
    assert (result["num_annotated"], result["num_videos"], result["num_texts"], result["num_missing"]) == (8, 6, 8, 2)
    for name, write in result["files"].items():
        write(tmp_path / name)
    t2v, v2t = np.load(tmp_path / "t2v_scores.npy"), np.load(tmp_path / "v2t_scores.npy")
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert archive.namelist() == ["sim_matrix_test.npy"]
        submitted = np.load(io.BytesIO(archive.read("sim_matrix_test.npy")))
    assert np.array_equal(submitted, t2v) and t2v.shape == v2t.shape == (8, 8) and submitted.dtype == np.float32
    # Of the texts that also have a labelled video, the scores are those of an evaluation with labels, row by row.
    readable = [row for row, record in enumerate(rows) if Path(record.video).stem in map(str, READABLE)]
    gone = [row for row in range(8) if row not in readable]
    assert (t2v[:, gone] < t2v[:, readable].min()).all() and (v2t[gone] < v2t[readable].min()).all()
    task.evaluation = replace(task.evaluation, rerank=0, dual_softmax=True)
    cosine = evaluate(task, task.config, CPU, final=True)
    assert cosine["note"].endswith("the plain scores, since dual softmax looks at all queries at once")
    cosine["files"]["t2v_scores.npy"](tmp_path / "cosine.npy")
    expected = recorder.scores["_cosine"][0]
    assert np.abs(np.load(tmp_path / "cosine.npy")[np.ix_(readable, readable)] - expected).max() < 1e-5
    assert labelled["labelled"] and labelled["num_texts"] == 6
    assert "2 of 8 videos have no scores: in the submission they come last for every text" in caplog.text


def test_a_list_of_videos_restricts_a_result_which_names_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    not_labelled(data, monkeypatch)
    (data / "list.txt").write_text("".join(f"{video}.mp4\n" for video in READABLE[:3]))
    given = {"dataset": "didemo", "eval_split": "val", "test_split": "val", "test_list": "list.txt"}
    task = RetrievalTask(config("retrieval", data, data=given), CPU)
    listed, whole = (evaluate(task, task.config, CPU, final=final) for final in (True, False))
    assert (listed["video_list"], listed["num_annotated"], listed["num_videos"]) == ("list.txt", 3, 3)
    assert "3 of 8 as list.txt lists them" in listed["source"]
    assert (whole["video_list"], whole["num_annotated"]) == (None, 8)


def test_a_set_without_public_pairs_cannot_choose_the_best_weights(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    not_labelled(data, monkeypatch)
    given = {"dataset": "condensed_movies", "eval_split": "test"}
    task = RetrievalTask(config("retrieval", data, data=given), CPU)
    with pytest.raises(ValueError, match=r"data\.eval_split: its pairs are not public"):
        task.steps_per_epoch  # noqa: B018


def test_texts_are_cut_to_max_tokens_in_training_and_evaluation(data: Path) -> None:
    task = RetrievalTask(config("retrieval", data, data={"max_tokens": 5}), CPU)
    assert task.tokenize([caption(1)])[0].shape == (1, 5)
    assert build(data).tokenize([caption(1)])[0].shape[1] > 5


def test_a_caption_that_several_videos_share_finds_any_of_them(data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
    shared = {rows[0]["video"]: "the same words", rows[2]["video"]: "the same words"}
    rows = [row | ({"caption": shared[row["video"]]} if row["video"] in shared else {}) for row in rows]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "videos").symlink_to(data / "videos")

    scores = {}
    for same_captions in ("apart", "together"):
        task = build(tmp_path, rerank=0, same_captions=same_captions)
        with pytest.MonkeyPatch.context() as patch:
            recorder = Recorder(task, patch)
            result = evaluate(task, task.config, CPU, final=True)
        scores[same_captions] = recorder.scores[""][0], result

    # The shared caption is the first text of both: its second copy, the text of the second readable video, is gone.
    (apart, result_apart), (together, result_together) = scores["apart"], scores["together"]
    assert result_apart["num_texts"] - 1 == result_together["num_texts"] == len(together)
    assert np.array_equal(apart[0], apart[1]) and np.array_equal(together, np.delete(apart, 1, axis=0))

    own = [row for row, video in enumerate(READABLE) for _ in range(CAPTIONS[video])]
    belongs = np.array(own)[:, None] == np.arange(len(READABLE))
    merged = np.delete(belongs, 1, axis=0)
    merged[0] |= belongs[1]
    expected = [1 + int((row[~found] >= row[found].max()).sum()) for row, found in zip(together, merged, strict=True)]
    for most in (1, 5, 10):
        assert result_together["metrics"][f"t2v_r{most}"] == 100 * np.mean(np.array(expected) <= most)
