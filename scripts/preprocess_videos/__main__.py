"""Make the videos of a dataset small before training: frame rate, short side, length; no sound, H.264 in mp4.

    python -m scripts.preprocess_videos data/didemo/downloaded data/didemo/videos --preset didemo --jobs 16

Every video below SOURCE, in subfolders too, becomes OUT/<the same folder>/NAME.mp4; of two that differ by the suffix
only, as some of DiDeMo do, NAME.mov and NAME.mp4 become NAME.mov.mp4 and NAME.mp4.mp4. The readers of annotations find
either. An interrupted run resumes: finished videos are skipped unless their source has changed. What
cannot be processed is in OUT/failures.jsonl with its reason, is tried again by the next run, and never ends one. Other
settings need another OUT. No ffmpeg program is needed.

Exit status: 0 if every video is there, 1 if some failed, 2 if the command itself is wrong.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from configs.sizes import format_bytes
from datasets.annotations.layout import VIDEO_SUFFIXES
from datasets.files_below import files_below
from datasets.transcoding.recipes import PRESETS, Recipe
from scripts.parts.arguments import at_least, positive
from scripts.parts.worker_pool import JOBS_HELP, Failure, run_each
from scripts.preprocess_videos.job import Job, work
from scripts.preprocess_videos.ledger import FAILURES, PARTIAL, Ledger, Video

NO_SUFFIX = ("", ".")
"""A file without a suffix is taken for a video too: QuerYD's downloader leaves them so, and Flickr a bare dot."""


@dataclass
class Summary:
    """What a run did."""

    written: int = 0
    failed: int = 0
    damaged: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


def find_videos(source: Path, out: Path) -> tuple[list[Video], int]:
    """The videos below `source`, sorted, and how many other files there are.

    ValueError if there are none, or if `out` lies within `source`.
    """
    if not source.is_dir():
        raise ValueError(f"{source}: no such folder; name the one that holds the videos")
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out}: lies within {source}; name a folder beside it")

    by_stem: dict[str, list[str]] = {}
    others = 0
    for path in sorted(_files(source)):
        stem, suffix = os.path.splitext(path)
        if suffix.lower() in (*VIDEO_SUFFIXES, *NO_SUFFIX):
            by_stem.setdefault(stem, []).append(path)
        else:
            others += 1

    if not by_stem:
        raise ValueError(f"{source}: no video in it; known suffixes are {', '.join(VIDEO_SUFFIXES)}")

    videos = [
        _video(source, path, f"{stem if len(paths) == 1 else path}.mp4")
        for stem, paths in by_stem.items()
        for path in paths
    ]
    first_of: dict[str, str] = {}
    for video in videos:
        other = first_of.setdefault(video.output, video.source)
        if other != video.source:
            raise ValueError(f"{source}: {other} and {video.source} would both become {video.output}; rename one")

    return videos, others


def process(source: Path, ledger: Ledger, videos: list[Video], recipe: Recipe, workers: int, timeout: float) -> Summary:
    """Process the videos below `source`, a progress bar showing it, and keep the ledger."""
    summary = Summary()
    jobs = [
        Job(video, source / video.source, ledger.out / PARTIAL / f"{index}.mp4", recipe)
        for index, video in enumerate(videos)
    ]
    # The workers end before the folder is left that they write to.
    with ledger.writing(), closing(run_each(work, jobs, workers, timeout)) as results:
        progress = tqdm(results, total=len(jobs), desc="videos", unit="video")
        for job, result in progress:
            if isinstance(result, Failure):
                job.temporary.unlink(missing_ok=True)
                ledger.fail(job.video, result.reason)
                summary.failed += 1
                progress.set_postfix(failed=summary.failed)
                continue
            summary.bytes_written += ledger.finish(job.video, job.temporary, result)
            summary.bytes_read += job.video.size
            summary.written += 1
            summary.damaged += result.damaged > 0

    return summary


def _video(source: Path, path: str, output: str) -> Video:
    try:
        state = (source / path).stat()
    # A link to nothing, or a folder that may not be entered: it fails like any other file that cannot be read.
    except OSError:
        return Video(path, output, size=-1, mtime_ns=-1)
    return Video(path, output, state.st_size, state.st_mtime_ns)


def _files(source: Path) -> Iterator[str]:
    """Relative paths of all files but hidden ones; links to folders are followed."""
    return (os.path.relpath(path, source) for path in files_below(source))


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of videos")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--preset", choices=PRESETS, help="a dataset's recipe; the options below change it")
    parser.add_argument("--fps", type=float, help="frames a second, by dropping or repeating frames")
    parser.add_argument(
        "--short-side", type=int, metavar="PIXELS", help="the shorter side; smaller videos stay as small"
    )
    parser.add_argument("--seconds", type=float, help="keep only so much from the beginning")
    parser.add_argument("--upscale", action="store_true", default=None, help="enlarge videos smaller than --short-side")
    parser.add_argument("--jobs", type=at_least(0), default=os.cpu_count() or 1, help=JOBS_HELP)
    parser.add_argument(
        "--timeout",
        type=positive,
        default=120.0,
        help="seconds without a frame, then a video is given up (%(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be done")

    return parser.parse_args(arguments)


def recipe_of(preset: str | None, **changes: Any) -> Recipe:
    """The preset under the changes that are not None. ValueError if nothing at all is asked for."""
    given = {name: value for name, value in changes.items() if value is not None}
    if preset is None and not given:
        raise ValueError("give --preset, or what to change: --fps, --short-side, --seconds")
    return replace(PRESETS[preset] if preset else Recipe(), **given)


def main(arguments: list[str] | None = None) -> None:
    """Does what the command line asks; a bad one ends it with one line and status 2."""
    options = parse_arguments(arguments)
    try:
        changes = {item.name: getattr(options, item.name) for item in fields(Recipe)}
        recipe = recipe_of(options.preset, **changes)
        videos, others = find_videos(options.source, options.out)
        ledger = Ledger(options.out, recipe)
        ledger.check_names(videos)
        todo = [video for video in videos if not ledger.is_done(video)]
        if options.dry_run:
            missing = set(todo)
            for video in videos:
                print(f"{'write' if video in missing else 'done '} {video.source} -> {video.output}")
            print(f"{len(todo)} to write, {len(videos) - len(todo)} done, {others} other files")
            return

        summary = process(options.source, ledger, todo, recipe, options.jobs, options.timeout)
    except (ValueError, OSError) as error:
        print(f"preprocess_videos: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("preprocess_videos: interrupted; the same command resumes from here", file=sys.stderr)
        raise SystemExit(130) from None

    print(
        f"{options.out}: {summary.written} written ({format_bytes(summary.bytes_read)} became "
        f"{format_bytes(summary.bytes_written)}), {len(videos) - len(todo)} were done, {summary.failed} failed"
        f"{f' (see {options.out / FAILURES})' if summary.failed else ''}, {summary.damaged} of the written damaged in "
        f"part, {others} other files left alone"
    )
    raise SystemExit(1 if summary.failed else 0)


if __name__ == "__main__":
    main()
