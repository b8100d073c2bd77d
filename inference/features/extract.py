"""Encode many videos into a feature folder, on several processes; a later run resumes where an earlier one stopped."""

import hashlib
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from configs.load import to_dict
from datasets.loaders import SAMPLE_TIMEOUT, evaluation_loader
from datasets.progress import FileProgress
from datasets.records import VideoTextRecord
from engine.distributed import (
    done_by_main,
    gather_objects,
    is_main,
    rank,
    world_size,
)
from engine.folder_lock import only_writer
from engine.host_memory import keep_freed_memory
from engine.hub import Checkpoint
from inference.api import TrainedModel, load_model
from inference.features.folder import FAILED, FEATURES, FeatureFolder, PartWriter
from inference.features.sources import Clip, clips_of
from inference.features.windows import Windows, with_windows
from tasks.data import video_text


@dataclass(frozen=True, kw_only=True)
class ExtractionRequest:
    """What to encode, with which checkpoint, and where the features go.

    Attributes:
        source: a video or an image, a folder of them, a manifest, or a file of pairs.
        checkpoint: a checkpoint folder, a file, or an `hf://` address.
        out: the feature folder.
        config: the YAML file for weights without a config.yaml beside them.
        videos: where a list's relative paths start; by default the folder `videos` beside the list.
        tokens: whether to keep all tokens of each video as well.
        windows: encode windows of each video besides the whole; None for the whole alone.
        overrides: `key=value` settings that replace the checkpoint's own.
    """

    source: Path
    checkpoint: str
    out: Path
    config: Path | None = None
    videos: Path | None = None
    tokens: bool = False
    windows: Windows | None = None
    batch_size: int = 8
    workers: int = 0
    dtype: Literal["auto", "fp32", "bf16", "fp16"] | None = None
    overrides: tuple[str, ...] = ()


def arrays_of(model: TrainedModel, tokens: bool) -> tuple[str, ...]:
    """The names of the arrays to keep; ValueError if there are none."""
    has_embeddings = "encode_video" in model.abilities
    if not (has_embeddings or tokens):
        raise ValueError(
            f"{model.source}: a checkpoint of {model.config.task} has no embeddings; give --tokens for its tokens, or "
            "a checkpoint fine-tuned for retrieval"
        )
    return (*(["embeddings"] if has_embeddings else []), *(["tokens"] if tokens else []))


def extraction_of(model: TrainedModel, request: ExtractionRequest, arrays: tuple[str, ...]) -> dict[str, Any]:
    """Where the features come from, as extraction.json records it."""
    with model.checkpoint.weights.open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    settings = to_dict(model.config)
    return {
        "source": str(request.source.resolve()),
        "videos": None if request.videos is None else str(request.videos.resolve()),
        "checkpoint": request.checkpoint,
        "weights_sha256": digest,
        "precision": model.precision,
        "arrays": list(arrays),
        **({} if request.windows is None else {"windows": request.windows.settings}),
        **{section: settings[section] for section in ("model", "video", "aggregation")},
    }


def extract(
    model: TrainedModel, clips: list[Clip], folder: FeatureFolder, batch_size: int, workers: int
) -> dict[str, str]:
    """Encode this process's share of the clips into parts; returns why files could not be read, by path."""
    records = [VideoTextRecord(clip.video, ("",), clip.start, clip.end) for clip in clips]
    progress = FileProgress(len(range(rank(), len(clips), world_size())), "videos or windows", shown=is_main())
    loader = evaluation_loader(
        video_text(model.config, records, training=False),
        batch_size=batch_size,
        rank=rank(),
        world_size=world_size(),
        workers=workers,
        sample_timeout=SAMPLE_TIMEOUT,
        timeout_per_frame=True,
        tell=progress.reading,
    )

    writer = PartWriter(folder)
    reasons: dict[str, str] = {}
    for batch in loader:
        reasons |= {failure["video"]: failure["reason"] for failure in batch["failed"]}
        if batch["clip"] is not None:
            progress.encoding(batch["names"])
            features = model.encode_clips(batch["clip"])
            found = {"tokens": features.tokens}
            if features.embedding is not None:
                found["embeddings"] = features.embedding
            kept = {name: found[name].float().cpu().numpy() for name in folder.arrays}
            writer.add([clips[position] for position in batch["index"].tolist()], kept)
        progress.advance(len(batch["index"]) + len(batch["failed"]))

    progress.close()
    writer.write()
    return reasons


def run(request: ExtractionRequest, checkpoint: Checkpoint | None = None) -> dict[str, Any]:
    """Extract the requested features and return the counts. A collective of all processes.

    `checkpoint` is the request's checkpoint, if the caller has already found it.
    """
    begun = time.monotonic()
    clips = done_by_main(lambda: _requested_clips(request))

    found = checkpoint or request.checkpoint
    model = load_model(found, *request.overrides, config=request.config, dtype=request.dtype)
    if model.device.type == "cpu":
        keep_freed_memory()

    arrays = arrays_of(model, request.tokens)
    folder = FeatureFolder(request.out, arrays)

    # The main process alone holds the lock and touches the folder's metadata; all processes encode.
    with ExitStack() as held:
        done_by_main(lambda: held.enter_context(only_writer(folder.out)))
        done_by_main(lambda: folder.begin(extraction_of(model, request, arrays)))

        # Skip clips that an earlier run encoded.
        done = done_by_main(lambda: set(folder.places()))
        left = [clip for clip in clips if clip not in done]
        reasons: dict[str, str] = {}
        for part in gather_objects(extract(model, left, folder, request.batch_size, request.workers) if left else {}):
            reasons |= part

        failed = done_by_main(lambda: folder.finish(clips, reasons))

    if len(failed) == len(clips):
        first = f"{failed[0]['video']}: {failed[0]['reason']}"
        raise ValueError(f"{request.source}: none of its {len(clips)} videos can be read (the first is {first})")

    return {
        "out": str(request.out),
        "videos": len(clips),
        "encoded": len(left) - len(failed),
        "encoded_before": len(clips) - len(left),
        "failed": len(failed),
        "arrays": list(arrays),
        "shapes": done_by_main(folder.shapes),
        "seconds": round(time.monotonic() - begun, 1),
    }


def _requested_clips(request: ExtractionRequest) -> list[Clip]:
    clips = clips_of(request.source, request.videos)
    return clips if request.windows is None else with_windows(clips, request.windows)


def summary(counts: dict[str, Any]) -> str:
    """The counts of `run` in a sentence."""
    out = Path(counts["out"])
    failed = f" (see {out / FAILED})" if counts["failed"] else ""
    arrays = " and ".join(f"{name} {tuple(shape)}" for name, shape in counts["shapes"].items())
    return (
        f"{out / FEATURES}: {arrays} of {counts['videos'] - counts['failed']} videos, "
        f"{counts['encoded']} of them encoded now in {counts['seconds']} s; {counts['failed']} failed{failed}"
    )
