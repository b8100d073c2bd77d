"""Evaluating retrieval, from video files to metrics: ours, and the way of the released code.

Both encode each video once, as one process does. Ours scores a pair once for both directions, and keeps tokens on the
disk; what the other does is in `naive_evaluation.py`.
"""

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.growth import Point, measure_points
from benchmarks.measure import Case, Variant
from benchmarks.naive_encoder import has_reference
from benchmarks.naive_evaluation import NaiveEvaluation
from benchmarks.settings import Settings, sections
from configs.data import DataConfig
from configs.evaluation import EvaluationConfig
from configs.optim import OptimConfig
from configs.schema import RetrievalConfig
from configs.training import ObjectiveConfig, TrainConfig
from datasets.stories.sentences import paragraph
from datasets.stories.stories import draw_splits
from datasets.stories.story_set import StorySet, make
from engine.host_memory import keep_freed_memory
from engine.loop import evaluate
from engine.precision import DTYPES, resolve_precision
from models.parts.tokenizer import FROM_DATA
from tasks.retrieval import RetrievalTask

MODULE = "benchmarks.evaluate"
SMALL = str(Path(__file__).parents[1] / "configs" / "debug" / "stories.yaml")
"""Whose model evaluates thousands of videos in minutes."""
NUM_VIDEOS = {"cpu": 8, "cuda": 64}
NUM_VIDEOS_SMALL, NUM_FILES = 256, 256
SCENES = 3


def cases(settings: Settings) -> list[Case]:
    """The configured model on a few videos, of which all pairs are rescored; by default a small one on more, too."""
    number = NUM_VIDEOS[settings.device]
    found = [_case(settings, f"evaluation, {number} videos, all pairs rescored", number)]
    if settings.config is None:
        small = replace(settings, config=SMALL, overrides=())
        most = EvaluationConfig().rerank
        name = f"evaluation, debug model, {NUM_VIDEOS_SMALL} videos, the best {most} rescored"
        found.append(_case(small, name, NUM_VIDEOS_SMALL, config=SMALL))
    return found


def _case(settings: Settings, name: str, num_videos: int, **model: str) -> Case:
    folder = Path(tempfile.mkdtemp(prefix="evaluate_"))
    atexit.register(shutil.rmtree, folder)  # the processes of the variants read it
    make_data(settings, folder, [num_videos])
    arguments = {"folder": str(folder), "num_videos": num_videos, **model}
    config, video, aggregation = sections(settings)
    naive_way = Variant(f"{MODULE}:naive", arguments) if has_reference(config, aggregation) else None
    return Case(f"{name}, {video.num_frames} frames", Variant(f"{MODULE}:ours", arguments), naive_way)


def growth(settings: Settings, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Rows {num_videos, seconds, peak_bytes, videos_encoded, pairs_scored} of evaluations of more and more videos.

    The model is the debug one unless `settings` name another. Videos share files, their texts are all different.
    """
    model: dict[str, Any] = {"config": SMALL} if settings.config is None else {}
    with tempfile.TemporaryDirectory(prefix="evaluate_") as folder:
        make_data(replace(settings, overrides=(), **model) if model else settings, Path(folder), counts)
        points = [
            Point(
                {"num_videos": number},
                Variant(f"{MODULE}:ours", {"folder": folder, "num_videos": number, "counted": True, **model}),
            )
            for number in counts
        ]
        rows = measure_points(points, settings, Path(folder) / "evaluation.json", warm=False)
        return [{**row, **json.loads(_counts(Path(folder), row["num_videos"]).read_text())} for row in rows]


def ours(
    settings: Settings, folder: str, num_videos: int, config: str | None = None, counted: bool = False
) -> Callable[[], None]:
    """`RetrievalTask.evaluate` as `--evaluate` runs it; `counted` writes what it did beside the data."""
    task = make_task(settings, Path(folder), num_videos, config)
    task.fold_for_inference(DTYPES[resolve_precision(task.config.train.precision, task.device)])
    if settings.device == "cpu":
        keep_freed_memory()  # not before: what building has freed would hide part of the peak
    counts = count_work(task) if counted else None

    def work() -> None:
        evaluate(task, task.config, task.device, final=True)
        if counts is not None:
            _counts(Path(folder), num_videos).write_text(json.dumps(counts))

    return work


def naive(settings: Settings, folder: str, num_videos: int, config: str | None = None) -> Callable[[], None]:
    """The released code's way, with the same weights and precision."""
    work = NaiveEvaluation(make_task(settings, Path(folder), num_videos, config))

    def evaluated() -> None:
        work()

    return evaluated


def count_work(task: RetrievalTask) -> dict[str, int]:
    """Counts that go up with the videos the task's model encodes and the pairs it scores."""
    counts = {"videos_encoded": 0, "pairs_scored": 0}
    encode_video, match = task.model.encode_video, task.model.match

    def counted_encode(video_BTCHW: Tensor) -> Any:
        counts["videos_encoded"] += len(video_BTCHW)
        return encode_video(video_BTCHW)

    def counted_match(video_tokens: Tensor, ids: Tensor, mask: Tensor, about: Tensor | None = None) -> Tensor:
        counts["pairs_scored"] += len(ids)
        return match(video_tokens, ids, mask, about)

    task.model.encode_video, task.model.match = counted_encode, counted_match
    return counts


def make_data(settings: Settings, folder: Path, counts: Sequence[int]) -> None:
    """Manifests of so many videos with one text each, all different; the videos are at most NUM_FILES under many names.

    Videos and texts are of different stories, which makes no difference to the time.
    """
    _, video, _ = sections(settings)
    num_files = min(NUM_FILES, max(counts))
    story_set = StorySet(
        train=1,
        test=num_files,
        scenes=SCENES,
        frames_per_scene=max(2, -(-video.num_frames // SCENES)),
        size=max(32, video.image_size // 32 * 32),
        pairs=0.0,
    )
    make(folder / "stories", story_set, workers=settings.threads)
    stories = draw_splits(np.random.default_rng(1), {"all": max(counts)}, SCENES, pair_share=0.0)["all"]
    lines = []
    (folder / "videos").mkdir()
    for number, story in enumerate(stories):
        name = f"{number:05d}.mp4"
        (folder / "videos" / name).hardlink_to(folder / "stories" / "videos" / f"test_{number % num_files:05d}.mp4")
        lines.append(json.dumps({"video": name, "caption": paragraph(story)}) + "\n")

    for count in counts:
        (folder / f"{count}.jsonl").write_text("".join(lines[:count]), encoding="utf-8")


def make_task(settings: Settings, folder: Path, num_videos: int, config: str | None = None) -> RetrievalTask:
    """Retrieval with random weights, of the settings' model or another `config`'s, on `make_data`'s videos."""
    model, video, aggregation = sections(replace(settings, config=config, overrides=()) if config else settings)
    torch.manual_seed(0)
    task = RetrievalTask(
        RetrievalConfig(
            data=DataConfig(root=str(folder), manifest=f"{num_videos}.jsonl"),
            optim=OptimConfig(lr=1e-5),
            train=TrainConfig(batch_size=2, max_epochs=1, workers=1),
            model=replace(model, text=replace(model.text, tokenizer=FROM_DATA)),
            video=video,
            aggregation=aggregation,
            # No twin and no queue: nothing is trained here.
            objective=ObjectiveConfig(losses=("vtc", "vtm"), queue_size=0, momentum=0.0, alpha=0.0),
            evaluation=EvaluationConfig(),
            output_dir=str(folder / "run"),
        ),
        torch.device(settings.device),
    )
    return task.to(settings.device).eval()


def _counts(folder: Path, num_videos: int) -> Path:
    return folder / f"{num_videos}_counts.json"
