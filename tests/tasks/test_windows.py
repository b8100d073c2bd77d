"""Sliding windows and dual softmax in evaluation: equal to plain loops, for any batch size and number of processes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from configs.load import from_dict
from configs.schema import RetrievalConfig
from datasets.annotations.manifest import read as read_manifest
from datasets.decode import read_video
from engine.loop import evaluate
from tasks import retrieval
from tasks.metrics import retrieval as ranking
from tasks.retrieval import RetrievalTask
from tests.gloo import run_ranks
from tests.models.tiny import randomise
from tests.models.tvts.tiny import with_time
from tests.tiny_runs import caption, config as config_of_testa
from tests.videos import write_video

CPU = torch.device("cpu")
LENGTHS, FRAMES, IMAGE = (40, 23, 6, 31, 3), 4, 16
MODEL = {
    "name": "tvts", "depth": 2, "width": 16, "heads": 2, "patch_size": 8, "embed_dim": 8, "sort_heads": 2,
    "text": {"tokenizer": "from_data", "vocab_size": 560, "depth": 3, "width": 16, "heads": 2, "max_positions": 24},
}  # fmt: skip
STRIDED = {"windows": 5, "window_stride": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of several lengths whose every frame differs, and an image."""
    root = tmp_path_factory.mktemp("windows")
    rng = np.random.default_rng(0)
    lines = []
    for video, length in enumerate(LENGTHS):
        frames = rng.integers(0, 255, (length, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
        path = write_video(root / "videos" / f"{video}.mp4", frames.astype(np.uint8))
        lines.append({"video": path.name, "caption": [caption(video, number) for number in range(1 + video % 2)]})
    (root / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def build(root: Path, **evaluation: Any) -> RetrievalTask:
    sections = {
        "task": "retrieval",
        "data": {"root": str(root)},
        "optim": {"lr": 1e-3},
        "train": {"batch_size": 4, "max_epochs": 1, "workers": 0},
        "video": {"num_frames": FRAMES, "image_size": IMAGE, "eval_sampling": "interval_middle"},
        "model": MODEL,
        "objective": {"losses": ["vtc"], "queue_size": 0, "momentum": 0.0, "alpha": 0.0, "temperature": 0.05},
        "evaluation": {"rerank": 0, **evaluation},
        "output_dir": str(root / "run"),
    }
    task = RetrievalTask(from_dict(RetrievalConfig, sections, "test"), CPU)
    torch.manual_seed(1)
    randomise(task.model)
    with_time(task.model.video_model)
    return task


def evaluated(root: Path, **evaluation: Any) -> tuple[dict[str, Any], NDArray]:
    """The result, and the cosines (texts, videos) that were ranked."""
    return evaluated_task(build(root, **evaluation))


def evaluated_task(task: RetrievalTask) -> tuple[dict[str, Any], NDArray]:
    seen: list[NDArray] = []
    ranks_of = retrieval.ranks_of

    def recorded(directions: Any, scores: Any) -> dict[str, NDArray]:
        seen.append(np.concatenate([directions[0].cosine(tile) for tile in directions[0].tiles()]))
        return ranks_of(directions, scores)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "ranks_of", recorded)
        return evaluate(task, task.config, CPU, final=True), seen[0]


def starts_by_hand(length: int, windows: int, stride: int | None) -> list[int]:
    """The reference's offsets 0, k, 2k, ... below length / (frames + 1); or as many at equal distances."""
    room = max(1, length // (FRAMES + 1))
    if stride is not None:
        return list(range(0, room, stride))[:windows]
    return sorted({window * room // windows for window in range(windows)})


def plain_loop(task: RetrievalTask, root: Path, windows: int, stride: int | None) -> NDArray:
    """Cosines (texts, videos): each window read and encoded alone, their unscaled embeddings averaged."""
    task.eval()
    videos = []
    with torch.no_grad():
        for number, length in enumerate(LENGTHS):
            bounds = np.linspace(0, length, FRAMES + 1).astype(int)
            found = []
            for start in starts_by_hand(length, windows, stride):
                wanted = (bounds[:-1] + start).clip(max=length - 1)
                pixels = read_video(str(root / "videos" / f"{number}.mp4"), IMAGE, lambda _, wanted=wanted: wanted)
                found.append(task.model.video_model(pixels[None]).embedding[0].numpy())
            mean = np.mean(found, axis=0)
            videos.append(mean / np.linalg.norm(mean))
        captions = [text for record in read_manifest_records(root) for text in record.captions]
        texts = np.stack([task.model.encode_text(*task.tokenize([text])).embedding[0].numpy() for text in captions])
    return texts @ np.stack(videos).T


def read_manifest_records(root: Path) -> list[Any]:
    return read_manifest(root / "captions.jsonl", root / "videos")


@pytest.mark.parametrize(("windows", "stride"), [(5, 2), (2, 3), (3, None), (50, None)])
def test_windows_are_averaged_as_in_a_plain_loop(root: Path, windows: int, stride: int | None) -> None:
    asked = {"windows": windows} | ({} if stride is None else {"window_stride": stride})
    result, cosine = evaluated(root, **asked)
    expected = plain_loop(build(root), root, windows, stride)
    assert np.abs(cosine - expected).max() < 1e-5
    assert result["windows"] == {"windows": windows, "stride": stride}
    assert max(len(starts_by_hand(length, windows, stride)) for length in LENGTHS) > 1
    _, middle = evaluated(root)
    assert np.abs(cosine - middle).max() > 1e-3, "windows are other frames than the single clip's"


def test_a_model_without_a_rule_of_its_own_averages_its_embeddings(root: Path) -> None:
    video = {"num_frames": FRAMES, "image_size": 32, "eval_sampling": "interval_middle"}
    task = RetrievalTask(
        config_of_testa(
            "retrieval", root, video=video, evaluation={"rerank": 0, **STRIDED}, objective={"losses": ["vtc"]}
        ),
        CPU,
    )
    torch.manual_seed(1)
    randomise(task.model)
    _, cosine = evaluated_task(task)
    encode = task.model.encode_video
    expected = []
    with torch.no_grad():
        for number, length in enumerate(LENGTHS):
            bounds = np.linspace(0, length, FRAMES + 1).astype(int)
            wanted = [(bounds[:-1] + start).clip(max=length - 1) for start in starts_by_hand(length, 5, 2)]
            clips = [
                read_video(str(root / "videos" / f"{number}.mp4"), 32, lambda _, frames=frames: frames)
                for frames in wanted
            ]
            expected.append(encode(torch.stack(clips)).embedding.mean(dim=0).numpy())
        captions = [text for record in read_manifest_records(root) for text in record.captions]
        texts = np.stack([task.model.encode_text(*task.tokenize([text])).embedding[0].numpy() for text in captions])
    assert np.abs(cosine - texts @ np.stack(expected).T).max() < 1e-5


def in_rank(root: Path) -> list[dict[str, Any]]:
    """Small tiles, so that each rank has some and none has all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "SCORES_AT_ONCE", 7)
        patch.setattr(retrieval, "TEXTS_AT_ONCE", 2)
        return [evaluated(root, batch_size=size, dual_softmax=True, **STRIDED)[0] for size in (1, 3)]


def test_batch_size_and_number_of_processes_change_nothing(root: Path) -> None:
    expected, _ = evaluated(root, dual_softmax=True, **STRIDED)
    for results in [in_rank(root), *run_ranks(2, in_rank, root)]:
        for result in results:
            assert result["metrics"] == expected["metrics"] and result["windows"] == expected["windows"]


def test_dual_softmax_is_that_of_the_whole_matrix_and_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    result, cosine = evaluated(root, dual_softmax=True, dual_softmax_temperature=0.2)
    text_video = np.repeat(np.arange(len(LENGTHS)), [1 + video % 2 for video in range(len(LENGTHS))])

    def ranks(scores: NDArray, own: NDArray) -> list[int]:
        best = np.where(own, scores, -np.inf).max(axis=1)
        return [
            1 + int((row[~mine] >= top).sum()) for row, mine, top in zip(scores, own, best, strict=True)
        ]  # fmt: skip

    own = text_video[:, None] == np.arange(len(LENGTHS))
    for name, matrix, relevant in (("t2v", cosine, own), ("v2t", cosine.T, own.T)):
        exponentials = np.exp(matrix.astype(np.float64) / 0.2)
        found = ranks(matrix * exponentials / exponentials.sum(axis=0), relevant)
        assert result["metrics"][f"{name}_mean_rank_dual_softmax"] == np.mean(found)
        assert result["metrics"][f"{name}_r1_dual_softmax"] == 100 * np.mean(np.array(found) == 1)
        assert result["metrics"][f"{name}_mean_rank"] == np.mean(ranks(matrix, relevant))
    assert result["dual_softmax"]["temperature"] == 0.2 and "all queries at once" in result["dual_softmax"]["note"]
    assert "dual softmax at temperature 0.2" in caplog.text
    plain, _ = evaluated(root)
    assert "dual_softmax" not in plain and not any("dual_softmax" in name for name in plain["metrics"])
    assert plain["metrics"].items() <= result["metrics"].items()
