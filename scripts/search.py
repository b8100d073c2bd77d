"""Search videos by a paragraph.

    python -m scripts.search index data/videos --checkpoint outputs/didemo/checkpoint_best --index outputs/index
    python -m scripts.search query "a dog digs in the snow" --index outputs/index
    python -m scripts.search query "a dog digs in the snow" --index outputs/index --top 5 --rerank 50 --json
    python -m scripts.search query "a proof" --index outputs/index --where "folder=lectures duration>10m tag=news"
    python -m scripts.search build-faiss outputs/index
    python -m scripts.search export outputs/index --to outputs/videos.parquet

`index` encodes a video, a folder of videos (subfolders too), a manifest or a file of pairs. The same command again
encodes what is new or changed, lets go what is gone, and tries again what failed (DIR/failed.jsonl). Changed is a file
of another size or time of change. Another checkpoint, setting or source needs another DIR. With --window, longer
videos are indexed by windows too, and a search finds each by the window that is nearest to the text. On several GPUs:
torchrun --nproc-per-node 8 -m scripts.search index ...

`query` needs no more than the index, which knows its checkpoint and settings. All videos are ranked by cosine, then the
best of them by cosine plus matching logit, as training's evaluation does, where the checkpoint has a matching head. Of
each video found it says which moments are most like the text; that is a hint, as training never compares them alone.

--where filters by folder=NAME, tag=NAME, duration>SECONDS, after=DATE and before=DATE, several of them separated by
spaces; all must hold. folder and tag take != too, duration any comparison; dates are when the file was last changed.

`build-faiss` adds approximate search (FAISS, `pip install faiss-cpu`) to an index, or brings it up to date with the
index, and says which share of the exact results it finds. Queries use it from then on, unless --engine is exact.
`export` writes embeddings, paths, times and tags to FILE.parquet (pyarrow) or DIR.lance (lancedb).

The probability of a match, 0 to 100 %, is the matching head's for the videos it ordered. With --rerank 0, or without
such a head, it comes from the cosine: how much more likely this text is than everyday captions, as contrastive training
weighs them. Where no video reaches 50 %, a note says that nothing matches. Notes, on the error stream and under `notes`
of --json, also say which words the model does not read, and how many videos could not be read and are not searched.

Exit status: 0, 1 if some videos cannot be indexed (0 too of several processes), 2 if the command itself is wrong.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import get_args

from engine.command_line import exit_status
from engine.distributed import is_main, start_distributed, stop_distributed, world_size
from engine.logging import start_logging
from inference.features.extract import ExtractionRequest, summary
from inference.features.folder import FAILED, read_failed
from inference.search.export import export
from inference.search.index import Engine, VideoIndex
from inference.search.searcher import BEST_FRAMES, Hit, Searcher, best_probability, nothing_matches
from scripts.parts.arguments import READERS, READERS_HELP, at_least, place
from scripts.parts.faiss_index import FaissRequest, add_build_faiss, build_faiss, faiss_request, refresh_faiss
from scripts.parts.windows import add_windows, windows_of

FAILED_SHOWN = 3


@dataclass(frozen=True)
class IndexRequest:
    """What `index` is to do; `as_json` prints the counts as JSON."""

    extraction: ExtractionRequest
    as_json: bool


@dataclass(frozen=True)
class QueryRequest:
    """What `query` is to find.

    Attributes:
        index: the index's folder. checkpoint: where the index's checkpoint is now, if it was moved.
        top: how many videos to list. rerank: how many of the best to order by matching too; None for `top`.
        frames: how many moments of each video to name.
        where: a filter on the videos, empty for none. engine: how to search; None for FAISS where the index has it.
    """

    text: str
    index: Path
    checkpoint: str | None
    top: int
    rerank: int | None
    frames: int
    as_json: bool
    where: str
    engine: Engine | None


@dataclass(frozen=True)
class ExportRequest:
    """The file or folder `to` that the rows of an index go to."""

    index: Path
    to: Path


Request = IndexRequest | QueryRequest | FaissRequest | ExportRequest


def parse_arguments(arguments: list[str] | None) -> Request:
    """Read the command line; None means the process's own."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    add_index(commands.add_parser("index", help="make an index of videos, or bring it up to date"))
    add_query(commands.add_parser("query", help="find videos by a text"))
    add_build_faiss(commands.add_parser("build-faiss", help="make or update approximate search of an index"))
    add_export(commands.add_parser("export", help="write an index to Parquet or LanceDB"))
    if not words or words[0] not in commands.choices:
        parser.parse_args(words)  # ends the process with the list of commands

    # Settings may stand anywhere, which a parser with sub-commands cannot read.
    options = commands.choices[words[0]].parse_intermixed_args(words[1:])
    if words[0] == "query":
        return QueryRequest(
            options.text,
            options.index,
            options.checkpoint,
            options.top,
            options.rerank,
            options.frames,
            options.json,
            options.where,
            options.engine,
        )
    if words[0] == "build-faiss":
        return faiss_request(options.index, options.checkpoint, options.codes, options.lists, options.rebuild)
    if words[0] == "export":
        return ExportRequest(options.index, options.to)

    extraction = ExtractionRequest(
        source=options.source,
        checkpoint=options.checkpoint,
        out=options.out,
        config=options.config,
        videos=options.videos,
        windows=windows_of(options.window, options.stride),
        batch_size=options.batch_size,
        workers=options.workers,
        dtype=options.dtype,
        overrides=tuple(options.overrides),
    )
    return IndexRequest(extraction, options.json)


def add_index(parser: argparse.ArgumentParser) -> None:
    """What `index` is given: what `scripts.extract_features` is, but for tokens."""
    parser.add_argument("source", type=place, metavar="SOURCE", help="video, folder or list, or its address")
    parser.add_argument("--checkpoint", required=True, help="checkpoint folder or hf:// address")
    parser.add_argument("--index", dest="out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--config", type=Path, help="YAML file of weights without a config.yaml beside them")
    parser.add_argument(
        "--videos", type=place, help="where relative paths in a list start; by default `videos` beside it"
    )
    add_windows(parser)
    parser.add_argument("--batch-size", type=at_least(1), default=8, help="videos encoded at once (%(default)s)")
    parser.add_argument("--workers", type=at_least(0), default=READERS, help=READERS_HELP)
    parser.add_argument("--dtype", choices=("auto", "fp32", "bf16", "fp16"), help="by default the checkpoint's own")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as aggregation.keep=0.25")


def add_query(parser: argparse.ArgumentParser) -> None:
    """What `query` is given."""
    parser.add_argument("text", metavar="TEXT", help="a phrase or a paragraph")
    parser.add_argument("--index", type=Path, required=True, metavar="DIR", help="what `index` wrote")
    parser.add_argument("--checkpoint", help="where the index's checkpoint went, if it was moved")
    parser.add_argument("--top", type=at_least(1), default=10, help="videos to list (%(default)s)")
    parser.add_argument("--rerank", type=at_least(0), metavar="K", help="the best K by matching too; by default TOP")
    parser.add_argument(
        "--frames",
        type=at_least(0),
        default=BEST_FRAMES,
        help="moments of each video that is listed; 0 opens it only to rerank (%(default)s)",
    )
    parser.add_argument("--where", default="", metavar="CONDITIONS", help='such as "folder=lectures duration>10m"')
    parser.add_argument("--engine", choices=get_args(Engine), help="by default faiss where the index has it")
    parser.add_argument("--json", action="store_true", help="print what is found as JSON")


def add_export(parser: argparse.ArgumentParser) -> None:
    """What `export` is given."""
    parser.add_argument("index", type=Path, metavar="INDEX", help="what `index` wrote")
    parser.add_argument("--to", type=Path, required=True, metavar="TARGET", help="FILE.parquet or DIR.lance")


def index(request: IndexRequest) -> int:
    """Make the index or bring it up to date; 1 if videos failed."""
    # A process with short videos waits long for the others; if one dies, torchrun ends them all.
    start_distributed(timedelta(days=7))
    start_logging()
    counts = VideoIndex.update(request.extraction)

    if is_main():
        folder = request.extraction.out
        print(json.dumps(counts) if request.as_json else summary(counts))
        refreshed = refresh_faiss(folder)
        if refreshed is not None:
            print(refreshed, file=sys.stderr if request.as_json else sys.stdout)

        for row in read_failed(folder)[:FAILED_SHOWN]:
            print(f"failed: {row['video']}: {row['reason']}", file=sys.stderr)
        if counts["failed"] > FAILED_SHOWN:
            print(f"failed: {counts['failed'] - FAILED_SHOWN} more, in {folder / FAILED}", file=sys.stderr)

    # A launcher takes status 1 for a process that died, and ends or restarts the others.
    alone = world_size() == 1
    stop_distributed()
    return 1 if counts["failed"] and alone else 0


def query(request: QueryRequest) -> int:
    """Print what is found."""
    searcher = Searcher.open(request.index, request.checkpoint, request.engine)
    hits = searcher.query(request.text, request.top, request.rerank, request.frames, where=request.where)
    notes = notes_of(searcher, request.text, hits)

    if request.as_json:
        found = [asdict(hit) for hit in hits]
        print(json.dumps({"text": request.text, "index": str(request.index), "hits": found, "notes": notes}))
        return 0

    if not hits:
        print(f"no video of {request.index} passes the filter {request.where}", file=sys.stderr)
    for note in notes:
        print(f"note: {note}", file=sys.stderr, flush=True)
    print("\n".join(in_words_of(rank, hit) for rank, hit in enumerate(hits, start=1)))
    return 0


def export_rows(request: ExportRequest) -> int:
    """Write the rows of an index elsewhere."""
    rows = export(VideoIndex.open(request.index, "exact"), request.to)
    print(f"{request.to}: {rows} rows")
    return 0


def notes_of(searcher: Searcher, text: str, hits: Sequence[Hit]) -> list[str]:
    """What the list of hits alone does not show, a sentence each."""
    notes = []
    unread = searcher.unread(text)
    if unread is not None:
        notes.append(unread)
    if nothing_matches(hits):
        best = best_probability(hits)
        notes.append(f"nothing in the index matches this text (the best match: {in_percent(best)})")
    failed = searcher.index.failed
    if failed:
        path = searcher.index.folder / FAILED
        notes.append(f"{len(failed)} videos could not be read and are not in the index (see {path})")
    return notes


def in_words_of(rank: int, hit: Hit) -> str:
    """A hit as people read it."""
    matched = "" if hit.match_logit is None else f" + matching {hit.match_logit:.3f} = {hit.score:.3f}"
    part = "" if hit.start is None and hit.end is None else f" from {hit.start or 0:g} s to {in_seconds(hit.end)}"
    best = ", ".join(f"{seconds:.1f} s ({similarity:.3f})" for seconds, similarity in hit.frames)
    sure = "" if hit.probability is None else f"; match {in_percent(hit.probability)}"
    lines = [f"{rank:3}. {hit.video}{part}", f"cosine {hit.cosine:.3f}{matched}{sure}"]
    lines += [f"best at {best}"] if best else []
    lines += [hit.problem] if hit.problem else []
    return "\n     ".join(lines)


def in_percent(probability: float | None) -> str:
    """A probability as people read it, never rounded up to certainty nor down to impossibility."""
    assert probability is not None
    if probability < 0.01:
        return "below 1 %"
    return "above 99 %" if probability > 0.99 else f"{probability:.0%}".replace("%", " %")


def in_seconds(end: float | None) -> str:
    """Where a part of a video ends."""
    return "its end" if end is None else f"{end:g} s"


def answer(request: Request) -> int:
    """Do what is requested; the exit status."""
    match request:
        case IndexRequest():
            return index(request)
        case QueryRequest():
            return query(request)
        case FaissRequest():
            return build_faiss(request)
        case ExportRequest():
            return export_rows(request)


def main(arguments: list[str] | None = None) -> None:
    """Does what the command line asks; a bad one ends it with one line and status 2."""
    with exit_status():
        request = parse_arguments(arguments)
        try:
            status = answer(request)
        except KeyboardInterrupt:
            if is_main():
                print("search: interrupted; the same command resumes from here", file=sys.stderr)
            raise SystemExit(130) from None
        except OSError as error:
            folder = request.extraction.out if isinstance(request, IndexRequest) else request.index
            raise ValueError(f"{folder}: {error}; make that right and give the same command") from error
    raise SystemExit(status)


if __name__ == "__main__":
    main()
