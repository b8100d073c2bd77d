"""Turn STOA-VLP's TFRecord shards of WebVid into videos and a manifest, without TensorFlow.

    python -m scripts.convert_tfrecords SHARDS OUT --captions frozen_train_labels.json --jobs 8

SHARDS is the folder with `path.index`, whose lines are a video's id, its shard and the record's offset in it, parted by
tabs. OUT gets `videos/ID.mp4`, at one frame a second as the records hold them, and `train.jsonl` of what was converted.
The same command resumes an ended run; what fails is in OUT/failures.jsonl with its reason. `python -m
scripts.make_shards` packs the result into tar shards.

Exit status: 0 if every clip of the captions is there, 1 if some are not, 2 if the command itself is wrong.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from scripts.convert_tfrecords.frames import Job, convert
from scripts.parts.arguments import at_least
from scripts.parts.worker_pool import JOBS_HELP, Failure, run_each

INDEX = "path.index"
TIMEOUT = 300.0


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path, help=f"folder with {INDEX}")
    parser.add_argument("out", type=Path, help="folder to fill")
    parser.add_argument("--captions", type=Path, required=True, help="JSON list of video_id and caption")
    parser.add_argument("--side", type=at_least(2), default=256, help="of the square frames, in pixels (%(default)s)")
    parser.add_argument("--fps", type=at_least(1), default=1, help="frames a second of the records (%(default)s)")
    parser.add_argument("--jobs", type=at_least(0), default=1, help=JOBS_HELP)
    arguments = parser.parse_args()

    try:
        places = dict(read_index(arguments.shards / INDEX))
        captions = read_captions(arguments.captions)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    jobs: list[Job] = []
    failures: dict[str, str] = {}
    for name in dict.fromkeys(name for name, _ in captions):
        if name not in places:
            failures[name] = f"{arguments.shards / INDEX} does not name it"
            continue
        target = arguments.out / "videos" / f"{name}.mp4"
        if not target.is_file():
            shard, offset = places[name]
            jobs.append(Job(name, arguments.shards / shard, offset, target, arguments.side, arguments.fps))

    results = run_each(convert, jobs, arguments.jobs, TIMEOUT)
    with closing(results):
        for job, found in tqdm(results, total=len(jobs), unit="clip", file=sys.stderr, disable=None):
            if isinstance(found, Failure):
                failures[job.name] = found.reason

    there = [(name, caption) for name, caption in captions if name not in failures]
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_lines(arguments.out / "train.jsonl", [{"video": f"{name}.mp4", "caption": text} for name, text in there])
    write_lines(
        arguments.out / "failures.jsonl", [{"clip": name, "reason": reason} for name, reason in failures.items()]
    )
    print(f"{arguments.out}: {len(there)} captions of clips that are there, {len(failures)} clips that are not")
    return 1 if failures else 0


def read_index(path: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    """Each video's shard and offset. ValueError names a line of another form, or one that leads out of the folder."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            columns = line.rstrip("\n").split("\t")
            if len(columns) != 3 or not columns[2].isdigit():
                raise ValueError(f"{path}:{number}: is not an id, a shard and an offset, parted by tabs: {line[:80]!r}")
            name, shard, offset = columns
            # The published writer gives whole paths of its own machine; shards lie beside the index.
            yield name, (Path(shard).name, int(offset))


def read_captions(path: Path) -> list[tuple[str, str]]:
    """Ids and captions. ValueError if the file is of another form, or an id is no plain file name."""
    try:
        rows = [(str(row["video_id"]), str(row["caption"])) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: is no JSON list of video_id and caption ({type(error).__name__}: {error})") from None
    odd = next((name for name, _ in rows if name != Path(name).name or name.startswith(".")), None)
    if odd is not None:
        raise ValueError(f"{path}: the video_id {odd!r} is no plain name")
    return rows


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    """JSONL; an empty one is removed."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
