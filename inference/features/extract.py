"""Encode many videos into a feature folder, on several processes; a later run resumes where an earlier one stopped."""

import hashlib
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from configs.load import remote_settings, to_dict
from datasets.loaders import SAMPLE_TIMEOUT, Batch, evaluation_loader
from datasets.progress import FileProgress
from datasets.remote.addresses import Folder
from datasets.remote.settings import use
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
from inference.features.encode import dataset_of, encode, rows_at_once
from inference.features.folder import FAILED, FEATURES, FeatureFolder, PartWriter, read_failed
from inference.features.sources import Clip, clips_of
from inference.features.windows import Windows, with_windows


@dataclass(frozen=True, kw_only=True)
class ExtractionRequest:
    """What to encode, with which checkpoint, and where the features go.

    Attributes:
        source: a video or an image, a folder of them, a manifest, or a file of pairs, here or at an address.
        checkpoint: a checkpoint folder, a file, or an `hf://` address.
        out: the feature folder.
        config: the YAML file for weights without a config.yaml beside them.
        videos: where a list's relative paths start; by default the folder `videos` beside the list.
        tokens: whether to keep all tokens of each video as well.
        parquet: whether to write the embeddings as Parquet too.
        windows: encode windows of each video besides the whole; None for the whole alone.
        batch_size: clips read together; a GPU also encodes them together.
        sample_timeout: seconds without a frame after which a file that is being read is given up.
        overrides: `key=value` settings that replace the checkpoint's own.
    """

    source: Folder
    checkpoint: str
    out: Path
    config: Path | None = None
    videos: Folder | None = None
    tokens: bool = False
    parquet: bool = False
    windows: Windows | None = None
    batch_size: int = 8
    workers: int = 0
    sample_timeout: float = SAMPLE_TIMEOUT
    dtype: Literal["auto", "fp32", "bf16", "fp16"] | None = None
    overrides: tuple[str, ...] = ()


def arrays_of(model: TrainedModel, tokens: bool) -> tuple[str, ...]:
    """The names of the arrays to keep; ValueError if there are none."""
    has_embeddings = "encode_video" in model.abilities
    if tokens and model.config.aggregation.has_open_rows:
        raise ValueError(
            "--tokens: each video keeps a number of tokens of its own, and a row of the array holds one number; add "
            "aggregation.keep=0.5, or another share that stays, or leave --tokens out"
        )
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
    model: TrainedModel, left: list[Clip], folder: FeatureFolder, request: ExtractionRequest, rows: int
) -> dict[str, str]:
    """Encode this process's share of the clips into parts; returns why files could not be read, by path.

    `rows` is how many clips are encoded at once.
    """
    progress = FileProgress(len(range(rank(), len(left), world_size())), "videos or windows", shown=is_main())
    loader = evaluation_loader(
        dataset_of(model, left),
        batch_size=request.batch_size,
        rank=rank(),
        world_size=world_size(),
        workers=request.workers,
        sample_timeout=request.sample_timeout,
        timeout_per_frame=True,
        tell=progress.reading,
    )

    return encode_batches(model, folder, left, loader, rows, progress)


def encode_batches(
    model: TrainedModel,
    folder: FeatureFolder,
    clips: list[Clip],
    batches: Iterable[Batch],
    rows: int,
    progress: FileProgress,
) -> dict[str, str]:
    """Encode the batches of `clips` into parts; returns why files could not be read, by path."""
    writer = PartWriter(folder)
    reasons: dict[str, str] = {}
    for batch in batches:
        reasons |= {failure["video"]: failure["reason"] for failure in batch["failed"]}
        if batch["clip"] is not None:
            progress.encoding(batch["names"])
            encoded = [clips[position] for position in batch["index"].tolist()]
            writer.add(encoded, encode(model, folder.arrays, batch["clip"], rows))
        progress.advance(len(batch["index"]) + len(batch["failed"]))

    progress.close()
    writer.write()
    return reasons


def load(
    request: ExtractionRequest, checkpoint: Checkpoint | None = None, device: torch.device | None = None
) -> TrainedModel:
    """The model that encodes, ready for many clips; `checkpoint` is the request's, if it has already been found."""
    found = checkpoint or request.checkpoint
    model = load_model(found, *request.overrides, config=request.config, device=device, dtype=request.dtype)
    if model.device.type == "cpu":
        keep_freed_memory()
    return model


def run(request: ExtractionRequest, checkpoint: Checkpoint | None = None) -> dict[str, Any]:
    """Extract the requested features and return the counts. A collective of all processes.

    `checkpoint` is the request's checkpoint, if the caller has already found it.
    """
    begun = time.monotonic()
    clips = done_by_main(lambda: requested_clips(request))
    model = load(request, checkpoint)
    arrays = arrays_of(model, request.tokens)
    folder = FeatureFolder(request.out, arrays, request.parquet)

    # The main process alone holds the lock and touches the folder's metadata; all processes encode.
    with ExitStack() as held:
        done_by_main(folder.check_nobody_shares)
        done_by_main(lambda: held.enter_context(only_writer(folder.out)))
        done_by_main(lambda: folder.begin(extraction_of(model, request, arrays)))

        # Skip clips that an earlier run encoded.
        done = done_by_main(lambda: set(folder.places()))
        left = [clip for clip in clips if clip not in done]
        reasons: dict[str, str] = {}
        rows = rows_at_once(model, request.batch_size, len(clips))
        for part in gather_objects(extract(model, left, folder, request, rows) if left else {}):
            reasons |= part

        done_by_main(lambda: folder.finish(clips, reasons))

    return done_by_main(lambda: counts_of(folder, request, clips, left, begun))


def counts_of(
    folder: FeatureFolder, request: ExtractionRequest, clips: list[Clip], left: list[Clip], begun: float
) -> dict[str, Any]:
    """What a finished extraction of `clips` did, of which `left` were not encoded before.

    `begun` is the `time.monotonic` of its beginning. ValueError if none of the videos can be read.
    """
    failed = read_failed(folder.out)
    if len(failed) == len(clips):
        first = f"{failed[0]['video']}: {failed[0]['reason']}"
        raise ValueError(f"{request.source}: none of its {len(clips)} videos can be read (the first is {first})")

    return {
        "out": str(request.out),
        "videos": len(clips),
        "encoded": len(left) - len(failed),
        "encoded_before": len(clips) - len(left),
        "failed": len(failed),
        "arrays": list(folder.arrays),
        "shapes": folder.shapes(),
        "seconds": round(time.monotonic() - begun, 1),
    }


def requested_clips(request: ExtractionRequest) -> list[Clip]:
    """The clips to encode, with their windows, in the order of the rows."""
    use(remote_settings(request.overrides))
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
