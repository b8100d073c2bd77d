"""Load a checkpoint for use, not for training: its settings, its task with weights, and its abilities."""

import json
import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from configs.load import load_any, load_to_evaluate
from configs.schema import CONFIG_CLASSES, TASKS, CaptionConfig, TaskConfig
from datasets.annotations.manifest import check_times
from datasets.decode import DecodeError, duration
from datasets.records import VideoTextRecord, is_image
from datasets.remote.addresses import resolve
from datasets.text import check_text, has_words
from engine.checkpoint_folder import CONFIG, WEIGHTS
from engine.hub import Checkpoint
from tasks.base import VideoTextTask

Video = str | Path
Seconds = float | Sequence[float | None] | None
OVERRIDABLE = ("video", "aggregation", "evaluation", "data", "model")
CAN_DO = {
    "encode_video": "one fine-tuned for retrieval, or pre-trained, with vtc",
    "encode_text": "one fine-tuned for retrieval, or pre-trained, with vtc",
    "classify": "one trained by train_recognition.py, or any that encodes videos and texts",
    "match": "one fine-tuned for retrieval, or pre-trained, with vtm",
    "answer": "one fine-tuned by train_vqa.py",
    "caption": "one fine-tuned by train_caption.py, or pre-trained with cap",
    "encode_tokens": "any",
}
"""Methods of `inference.api.TrainedModel`, and which checkpoints can do each."""


def settings_to_use(checkpoint: Checkpoint, overrides: list[str], config: Path | None) -> TaskConfig:
    """A checkpoint's configuration with `key=value` overrides applied, and without what only training needs.

    The file `config` describes weights that have no config.yaml beside them. A one-line ValueError says what is missing
    or does not fit.
    """
    for override in overrides:
        if override.partition("=")[0].partition(".")[0] not in OVERRIDABLE:
            raise ValueError(
                f"{override}: has no effect on a checkpoint that is only used; give {', '.join(OVERRIDABLE)}"
            )

    if not checkpoint.weights.exists():
        inside = sorted(str(path.parent) for path in checkpoint.path.glob(f"*/{WEIGHTS}"))
        raise ValueError(
            f"{checkpoint.source}: holds no {WEIGHTS}; name {' or '.join(inside) or 'a checkpoint folder'}"
        )

    trained = checkpoint.folder / CONFIG
    if config is None and not trained.exists():
        raise ValueError(
            f"{checkpoint.source}: has no {CONFIG} beside it; give with config the YAML file that it was trained by"
        )

    if config is None:
        trained_config = load_any(CONFIG_CLASSES, trained, [])
    else:
        trained_config = load_any(CONFIG_CLASSES, config, overrides)

    # Quoted, because a path may contain characters with a meaning in YAML.
    weights = f"checkpoint={json.dumps(str(checkpoint.path))}"
    settings = load_to_evaluate(type(trained_config), config, [weights, *overrides])

    if isinstance(settings, CaptionConfig):
        # Nothing is scored here, and this metric never needs Java.
        settings = replace(settings, evaluation=replace(settings.evaluation, best_metric="cider"))
    return replace(settings, train=replace(settings.train, workers=0, compile=False, activation_checkpointing="none"))


def trained_task(settings: TaskConfig, device: torch.device) -> VideoTextTask:
    """The task with the weights of `settings.checkpoint`, on the device, without the twin that only training needs."""
    task: VideoTextTask = pkgutil.resolve_name(TASKS[settings.task].use)(settings, device)
    if type(task) is VideoTextTask:
        task.start_from_checkpoint()
    return task.to(device).eval()


def abilities_of(settings: TaskConfig) -> tuple[str, ...]:
    """The entries of CAN_DO that a model was trained for."""
    taught = settings.objective.teaches | {"encode_tokens"}
    if {"encode_video", "encode_text"} <= taught:
        taught |= {"classify"}
    return tuple(name for name in CAN_DO if name in taught)


def records_of(videos: Video | Sequence[Video], start: Seconds, end: Seconds) -> list[VideoTextRecord]:
    """The videos, or parts of them, as records without a text; ValueError for invalid times."""
    listed = [videos] if isinstance(videos, Video) else list(videos)
    if not listed:
        raise ValueError("no videos are given; give at least one")

    records = []
    for video, first, last in zip(listed, _each(start, len(listed)), _each(end, len(listed)), strict=True):
        path = resolve(Path(), str(video))
        try:
            check_times({"video": path, "start": first, "end": last})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        records.append(VideoTextRecord(path, ("",), first, last))
    return records


def duration_of(video: Video) -> float:
    """How long a video is, in seconds; ValueError if it cannot be read, or is an image."""
    if is_image(str(video)):
        raise ValueError(f"{video}: is an image, which has no windows; give a video")
    try:
        return duration(resolve(Path(), str(video)))
    except DecodeError as error:
        raise ValueError(f"{video}: cannot be read ({error.reason}); give another file") from None


def _each(times: Seconds, count: int) -> Sequence[float | None]:
    if not isinstance(times, Sequence):
        return [times] * count
    if len(times) != count:
        raise ValueError(f"start and end: {len(times)} times for {count} videos; give one for each, or one for all")
    return times


def check_texts(texts: Sequence[str], name: str) -> None:
    """Refuse texts as a manifest would: a ValueError if there are none, or if one has no words or is unusable."""
    if not texts:
        raise ValueError(f"no {name}s are given; give at least one")
    for position, text in enumerate(texts):
        if not isinstance(text, str) or not has_words(text):
            raise ValueError(f"{name} {position} is {text!r}, which has no words; write at least one")
        check_text(text, f"{name} {position}")
