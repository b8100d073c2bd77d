"""Extract embeddings, and with --tokens all tokens, of many videos, on one GPU or several; a run resumes.

    python -m scripts.extract_features data/videos --checkpoint outputs/didemo/checkpoint_best --out features
    torchrun --nproc-per-node 8 -m scripts.extract_features data/train.jsonl --checkpoint hf://me/testa --out features

SOURCE is a video or an image, a folder of them (subfolders too), a manifest, or a file of pairs (.jsonl, .csv, .tsv,
.json). OUT/features/embeddings.npy can be memory-mapped, and a line of OUT/features/index.jsonl says what each row is
of; what cannot be read is in OUT/failed.jsonl with its reason. The same command resumes, retries what
failed, and encodes what is new or changed. With --window, each longer video has a row for the whole and one for each
window; `start` and `end` of a line say which. Another checkpoint, setting or source needs another OUT.

Exit status: 0 if every video is encoded, 1 if some failed (0 too of several processes, as torchrun would take 1 for the
end of one), 2 if the command itself is wrong.

Past one machine: --engine hosts lets any number of processes, on any hosts, give the same command with the same OUT,
and share the work; one that dies leaves nothing undone. --engine ray has actors of Ray Data do it, on the cluster at
--address or on this machine. All engines give the same rows, to the bit (docs/SCALE.md).
"""

import argparse
import json
import sys
from datetime import timedelta
from pathlib import Path

from datasets.loaders import SAMPLE_TIMEOUT
from engine.command_line import exit_status
from engine.distributed import (
    is_main,
    start_distributed,
    stop_distributed,
    world_size,
)
from engine.logging import start_logging
from inference.features.engines import ENGINES, STALE_AFTER, Engine, run_on
from inference.features.extract import ExtractionRequest, summary
from scripts.parts.arguments import READERS, READERS_HELP, at_least, place, positive
from scripts.parts.windows import add_windows, windows_of


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=place, metavar="SOURCE", help="video, folder or list, or its address")
    parser.add_argument("--checkpoint", required=True, help="checkpoint folder or hf:// address")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--config", type=Path, help="YAML file of weights without a config.yaml beside them")
    parser.add_argument("--videos", type=place, help="where paths in a list start; by default `videos` beside it")
    parser.add_argument("--tokens", action="store_true", help="keep all tokens of every video too")
    parser.add_argument("--parquet", action="store_true", help="write OUT/parquet/ too, of the embeddings (pyarrow)")
    add_windows(parser)
    parser.add_argument("--batch-size", type=at_least(1), default=8, help="videos encoded at once (%(default)s)")
    parser.add_argument("--workers", type=at_least(0), default=READERS, help=READERS_HELP)
    parser.add_argument(
        "--sample-timeout",
        type=positive,
        default=SAMPLE_TIMEOUT,
        metavar="SECONDS",
        help="a video of which no frame comes for so long is given up (%(default)g)",
    )
    parser.add_argument("--engine", choices=ENGINES, default="local", help="who does the work (%(default)s)")
    parser.add_argument(
        "--stale-after",
        type=positive,
        default=STALE_AFTER,
        metavar="SECONDS",
        help="--engine hosts: a process without a sign of life for so long is dead (%(default)g)",
    )
    parser.add_argument("--address", help="--engine ray: of a running cluster; by default Ray starts on this machine")
    parser.add_argument("--actors", type=at_least(1), help="--engine ray: how many; by default one a GPU")
    parser.add_argument("--dtype", choices=("auto", "fp32", "bf16", "fp16"), help="by default the checkpoint's own")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as aggregation.keep=0.25")
    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Does what the command line asks; a bad one ends it with one line and status 2."""
    options = parse_arguments(arguments)
    with exit_status():
        engine = Engine(options.engine, options.stale_after, options.address, options.actors)
        if engine.name == "local":
            # A process whose videos are short waits for the others; one that is gone, torchrun ends all for.
            start_distributed(timedelta(days=7))
        start_logging()
        try:
            counts = run_on(
                engine,
                ExtractionRequest(
                    source=options.source,
                    checkpoint=options.checkpoint,
                    out=options.out,
                    config=options.config,
                    videos=options.videos,
                    tokens=options.tokens,
                    parquet=options.parquet,
                    windows=windows_of(options.window, options.stride),
                    batch_size=options.batch_size,
                    workers=options.workers,
                    sample_timeout=options.sample_timeout,
                    dtype=options.dtype,
                    overrides=tuple(options.overrides),
                ),
            )
        except KeyboardInterrupt:
            if is_main():
                print("extract_features: interrupted; the same command resumes from here", file=sys.stderr)
            raise SystemExit(130) from None
        except OSError as error:
            raise ValueError(f"{options.out}: {error}; make that right and give the same command") from error

        if is_main():
            print(json.dumps(counts) if options.json else summary(counts))
        # A launcher would take 1 for a process that died, and end or restart the others.
        alone = world_size() == 1 and engine.name != "hosts"
        stop_distributed()

    raise SystemExit(1 if counts["failed"] and alone else 0)


if __name__ == "__main__":
    main()
