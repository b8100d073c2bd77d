"""Embeddings, and with --tokens all tokens, of many videos: on several GPUs, and going on where a run ended.

    python -m scripts.extract_features data/videos --checkpoint outputs/didemo/checkpoint_best --out features
    torchrun --nproc-per-node 8 -m scripts.extract_features data/train.jsonl --checkpoint hf://me/testa --out features

SOURCE is a video or an image, a folder of them (subfolders too), a manifest, or a file of pairs (.jsonl, .csv, .tsv,
.json). OUT/features/embeddings.npy can be memory-mapped, and a line of OUT/features/index.jsonl says what each row is
of; what cannot be read is in OUT/failed.jsonl with its reason. The same command goes on where a run ended, tries again
what failed, and encodes what is new or changed. Another checkpoint, setting or source needs another OUT.

Exit status: 0 if every video is encoded, 1 if some failed (0 too of several processes, as torchrun would take 1 for the
end of one), 2 if the command itself is wrong.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from configs.load import to_dict
from datasets.loaders import SAMPLE_TIMEOUT, evaluation_loader
from datasets.records import VideoTextRecord
from engine.checkpoint import WEIGHTS
from engine.command_line import exit_status
from engine.distributed import (
    done_by_main,
    gather_objects,
    is_main,
    rank,
    start_distributed,
    stop_distributed,
    world_size,
)
from engine.host_memory import keep_freed_memory
from engine.hub import local_path
from engine.logging import start_logging
from models.api import TrainedModel, load_model
from scripts.arguments import at_least
from scripts.feature_extraction.folder import FAILED, FEATURES, FeatureFolder, PartWriter
from scripts.feature_extraction.sources import Clip, clips_of
from scripts.folder_lock import only_writer
from tasks.base import progress_bar
from tasks.data import video_text

WORKERS = min(os.cpu_count() or 1, 4)
WORKERS_HELP = "processes that read videos, for each GPU (%(default)s)"


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="video, folder, manifest or file of pairs")
    parser.add_argument("--checkpoint", required=True, help="checkpoint folder or hf:// address")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--config", type=Path, help="YAML file of weights without a config.yaml beside them")
    parser.add_argument("--videos", type=Path, help="folder of relative paths in a list; by default `videos` beside it")
    parser.add_argument("--tokens", action="store_true", help="keep all tokens of every video too")
    parser.add_argument("--batch-size", type=at_least(1), default=8, help="videos encoded at once (%(default)s)")
    parser.add_argument("--workers", type=at_least(0), default=WORKERS, help=WORKERS_HELP)
    parser.add_argument("--dtype", choices=("auto", "fp32", "bf16", "fp16"), help="by default the checkpoint's own")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as aggregation.keep=0.25")
    return parser.parse_intermixed_args(arguments)


def arrays_of(model: TrainedModel, tokens: bool) -> tuple[str, ...]:
    """What is kept of each video. ValueError if that is nothing."""
    has_embeddings = "encode_video" in model.abilities
    if not (has_embeddings or tokens):
        raise ValueError(
            f"{model.source}: a checkpoint of {model.config.task} has no embeddings; give --tokens for its tokens, or "
            "a checkpoint fine-tuned for retrieval"
        )
    return (*(["embeddings"] if has_embeddings else []), *(["tokens"] if tokens else []))


def extraction_of(model: TrainedModel, options: argparse.Namespace, arrays: tuple[str, ...]) -> dict[str, Any]:
    """What the features are of, as extraction.json says it."""
    path = local_path(options.checkpoint)
    with (path / WEIGHTS if path.is_dir() else path).open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    settings = to_dict(model.config)
    return {
        "source": str(options.source.resolve()),
        "videos": None if options.videos is None else str(options.videos.resolve()),
        "checkpoint": options.checkpoint,
        "weights_sha256": digest,
        "precision": model.precision,
        "arrays": list(arrays),
        **{section: settings[section] for section in ("model", "video", "aggregation")},
    }


def extract(
    model: TrainedModel, clips: list[Clip], folder: FeatureFolder, batch_size: int, workers: int
) -> dict[str, str]:
    """Encode this process's share of the clips into parts; why a file could not be read, by its path."""
    records = [VideoTextRecord(clip.video, ("",), clip.start, clip.end) for clip in clips]
    loader = evaluation_loader(
        video_text(model.config, records, training=False),
        batch_size=batch_size,
        rank=rank(),
        world_size=world_size(),
        workers=workers,
        sample_timeout=SAMPLE_TIMEOUT,
    )
    writer = PartWriter(folder)
    reasons: dict[str, str] = {}
    for batch in progress_bar(loader, "batches of videos"):
        reasons |= {failure["video"]: failure["reason"] for failure in batch["failed"]}
        if batch["video"] is not None:
            features = model.encode_pixels(batch["video"])
            found = {"tokens": features.tokens}
            if features.embedding is not None:
                found["embeddings"] = features.embedding
            kept = {name: found[name].float().cpu().numpy() for name in folder.arrays}
            writer.add([clips[position] for position in batch["index"].tolist()], kept)
    writer.write()
    return reasons


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Extract what the command line asks for; the counts."""
    begun = time.monotonic()
    clips = done_by_main(lambda: clips_of(options.source, options.videos))
    model = load_model(options.checkpoint, *options.overrides, config=options.config, dtype=options.dtype)
    if model.device.type == "cpu":
        keep_freed_memory()
    arrays = arrays_of(model, options.tokens)
    folder = FeatureFolder(options.out, arrays)
    with ExitStack() as held:
        done_by_main(lambda: held.enter_context(only_writer(folder.out)))
        done_by_main(lambda: folder.begin(extraction_of(model, options, arrays)))
        done = done_by_main(lambda: set(folder.places()))
        left = [clip for clip in clips if clip not in done]
        reasons: dict[str, str] = {}
        for part in gather_objects(extract(model, left, folder, options.batch_size, options.workers) if left else {}):
            reasons |= part
        failed = done_by_main(lambda: folder.finish(clips, reasons))
    if len(failed) == len(clips):
        first = f"{failed[0]['video']}: {failed[0]['reason']}"
        raise ValueError(f"{options.source}: none of its {len(clips)} videos can be read (the first is {first})")
    return {
        "out": str(options.out),
        "videos": len(clips),
        "encoded": len(left) - len(failed),
        "encoded_before": len(clips) - len(left),
        "failed": len(failed),
        "arrays": list(arrays),
        "seconds": round(time.monotonic() - begun, 1),
    }


def main(arguments: list[str] | None = None) -> None:
    """Does what the command line asks; a bad one ends it with one line and status 2."""
    options = parse_arguments(arguments)
    with exit_status():
        # A process whose videos are short waits for the others; one that is gone, torchrun ends all for.
        start_distributed(timedelta(days=7))
        start_logging()
        try:
            counts = run(options)
        except KeyboardInterrupt:
            print("extract_features: ended; the same command goes on from here", file=sys.stderr)
            raise SystemExit(130) from None
        except OSError as error:
            raise ValueError(f"{options.out}: {error}; make that right and give the same command") from error
        if is_main():
            print(json.dumps(counts) if options.json else in_words(counts))
        # A launcher would take 1 for a process that died, and end or restart the others.
        alone = world_size() == 1
        stop_distributed()
    raise SystemExit(1 if counts["failed"] and alone else 0)


def in_words(counts: dict[str, Any]) -> str:
    """The counts as people read them."""
    out = Path(counts["out"])
    failed = f" (see {out / FAILED})" if counts["failed"] else ""
    return (
        f"{out / FEATURES}: {' and '.join(counts['arrays'])} of {counts['videos'] - counts['failed']} videos, "
        f"{counts['encoded']} of them encoded now in {counts['seconds']} s; {counts['failed']} failed{failed}"
    )


if __name__ == "__main__":
    main()
