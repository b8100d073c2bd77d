"""Pack a file of pairs and its videos or images into tar shards in webdataset's layout.

    python -m scripts.make_shards DATA/webvid.csv --media DATA/webvid --out DATA/webvid_shards

OUT gets NAME-000000.tar, NAME-000001.tar, ..., and index.json, which `data.sources` names as its file. A sample is
called by the number of its row, or with --keep-names like its video, by which the boxes of `data.objects` are found.
Its `.json` holds the captions, the name the video had, and its part in seconds. Which rows a shard holds is decided
before the first is written, so an interrupted run resumes with the first shard that is not there, and the shards are
the same to the byte however often that happened. Rows whose file is missing or empty are in OUT/missing.jsonl.

Exit status: 0 if every file was there, 1 if some were not, 2 if the command itself is wrong.
"""

import argparse
import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from configs.sizes import format_bytes
from datasets import shards
from datasets.pairs import PairTable
from datasets.sources import holds_its_videos, open_source
from engine.checkpoint_folder import write_json
from engine.folder_lock import only_writer
from scripts.parts.arguments import at_least
from scripts.parts.worker_pool import JOBS_HELP, Beat, Failure, run_each

PLAN, SIZES, MISSING = "plan.json", "plan_sizes.npy", "missing.jsonl"
TIMEOUT = 600.0
"""Seconds without a sample written until a shard is given up."""
LARGEST = 8 << 30
"""Bytes; a size in a tar header is eleven octal digits."""


@dataclass(frozen=True)
class Item:
    """One sample: its name in the shard without `.json`, the file, its planned size, and what its `.json` says."""

    key: str
    suffix: str
    file: str
    size: int
    fields: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One shard for a worker."""

    path: Path
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Plan:
    """The rows of each shard: from its `first_rows` to the next shard's, without those of negative `sizes`."""

    out: Path
    table: PairTable
    name: str
    first_rows: list[int]
    sizes: NDArray[np.int64]
    keep_names: bool = False

    @cached_property
    def _first_texts(self) -> NDArray[np.int64]:
        """(videos + 1,) where the texts of each video begin; they stand together."""
        return np.searchsorted(self.table.text_video, np.arange(self.table.num_videos + 1))

    @cached_property
    def counts(self) -> list[int]:
        """How many samples each shard holds."""
        return [int((part >= 0).sum()) for part in np.split(self.sizes, self.first_rows[1:])]

    def jobs(self) -> Iterator[Job]:
        """A job for each shard that is not there yet, in order."""
        for number, (first, end) in enumerate(pairwise([*self.first_rows, len(self.sizes)])):
            if not self.path(number).is_file():
                rows = [row for row in range(first, end) if self.sizes[row] >= 0]
                yield Job(self.path(number), tuple(self._item(row) for row in rows))

    def path(self, number: int) -> Path:
        """Where a shard lies."""
        return self.out / f"{self.name}-{number:06}.tar"

    def _item(self, row: int) -> Item:
        first, end = self._first_texts[row : row + 2].tolist()
        captions = [self.table.texts[text] for text in range(first, end)]
        fields: dict[str, Any] = {"video": self.table.paths[row], "caption": captions}
        for name, time in zip(("start", "end"), self.table.span(row), strict=True):
            if time is not None:
                fields[name] = time
        file = self.table.path(row)
        key = shards.split_key(self.table.paths[row])[0] if self.keep_names else f"{row:09}"
        return Item(key, Path(file).suffix.lower(), file, int(self.sizes[row]), fields)


def plan_shards(source: Path, table: PairTable, out: Path, shard_mb: int, keep_names: bool = False) -> Plan:
    """The plan that `out` has, or a new one, which is written there with a list of what is missing.

    ValueError if `out` was made of another source or with another size, or if names to keep do not tell samples apart.
    """
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    settings: dict[str, Any] = {"source": source.name, "sha256": digest, "shard_mb": shard_mb}
    if keep_names:
        settings["keep_names"] = True
        _check_names(source, table)
    if (out / PLAN).is_file():
        known = json.loads((out / PLAN).read_bytes())
        for name in dict.fromkeys([*known["settings"], *settings]):
            before, now = known["settings"].get(name, False), settings.get(name, False)
            if before != now:
                raise ValueError(f"{out}: was made with {name} {before}, not {now}; name another --out")
        return Plan(out, table, source.stem, known["first_rows"], np.load(out / SIZES), keep_names)

    if any(out.glob("*.tar")):
        raise ValueError(f"{out}: holds shards but no {PLAN}; name another --out")

    sizes, missing = _measure(table)
    if len(missing) == len(sizes):
        first = missing[0]
        raise ValueError(
            f"{source}: no file can be taken, the first is {first['video']} ({first['reason']}); check --media"
        )

    np.save(out / SIZES, sizes)
    (out / MISSING).write_text("".join(json.dumps(row) + "\n" for row in missing))
    first_rows, held = [0], 0
    for row, size in enumerate(sizes.tolist()):
        if held and size > 0 and held + size > shard_mb * 1_000_000:
            first_rows.append(row)
            held = 0
        held += max(size, 0)

    write_json(out / PLAN, {"settings": settings, "first_rows": first_rows})
    return Plan(out, table, source.stem, first_rows, sizes, keep_names)


def _check_names(source: Path, table: PairTable) -> None:
    """ValueError if two samples would have one name, or if a name would end at a dot in it."""
    rows: dict[str, int] = {}
    for row, path in enumerate(table.paths):
        key, suffix = shards.split_key(path)
        if Path(path).is_absolute() or ".." in Path(path).parts or "." in suffix:
            raise ValueError(f"{source}: --keep-names: {path} is no name in a shard; leave the option out")
        if rows.setdefault(key, row) != row:
            raise ValueError(
                f"{source}: --keep-names: {path} stands in several rows, all of one name; leave the option out"
            )


def _measure(table: PairTable) -> tuple[NDArray[np.int64], list[dict[str, Any]]]:
    """(videos,) the size of each file, -1 where it cannot be taken, and those with the reason."""
    sizes, missing = np.full(table.num_videos, -1, np.int64), []
    for row in tqdm(range(table.num_videos), desc="looking for files", unit="file", disable=None):
        path = Path(table.path(row))
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            reason = "no such file"
        elif not size:
            reason = "the file is empty"
        elif size >= LARGEST:
            reason = f"{size} bytes are more than a tar file takes"
        elif not os.access(path, os.R_OK):
            reason = "not allowed to read it"
        elif path.suffix.lower() not in shards.MEDIA_SUFFIXES:
            reason = f"{path.suffix or 'no suffix'} is not the suffix of a video or an image"
        else:
            sizes[row] = size
            continue

        missing.append({"row": row, "video": str(path), "reason": reason})

    return sizes, missing


def write_shard(job: Job, beat: Beat) -> int:
    """Write a shard beside its place and rename it into that; returns its size. ValueError if a file has changed."""
    new = job.path.with_suffix(".partial")
    with new.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for item in job.items:
                beat()
                with open(item.file, "rb") as media:
                    if os.fstat(media.fileno()).st_size != item.size:
                        raise ValueError(f"{item.file}: has changed since the shards were planned; name another --out")
                    _add(tar, f"{item.key}{item.suffix}", item.size, media)
                content = json.dumps(item.fields).encode()
                _add(tar, f"{item.key}.json", len(content), io.BytesIO(content))
        file.flush()
        os.fsync(file.fileno())

    new.rename(job.path)
    return job.path.stat().st_size


def _add(tar: tarfile.TarFile, name: str, size: int, content: Any) -> None:
    # A new TarInfo has no owner and no time, so the bytes depend on name and content alone.
    member = tarfile.TarInfo(name)
    member.size = size
    tar.addfile(member, content)


def make_shards(plan: Plan, workers: int) -> list[str]:
    """Write the shards that are not there yet, and the index once all are; returns why some could not be written."""
    todo = sum(not plan.path(number).is_file() for number in range(len(plan.first_rows)))
    failed = []
    with closing(run_each(write_shard, plan.jobs(), workers, TIMEOUT)) as results:
        for job, result in tqdm(results, total=todo, desc="shards", unit="shard", disable=None):
            if isinstance(result, Failure):
                failed.append(f"{job.path}: {result.reason}")
    if not failed:
        made = [(plan.path(number), count) for number, count in enumerate(plan.counts)]
        shards.write_index(
            plan.out / shards.INDEX,
            [shards.Shard(path.name, str(path), count, path.stat().st_size) for path, count in made],
        )
    return failed


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="pairs: .jsonl, .csv, .json or .tsv")
    parser.add_argument("--media", type=Path, required=True, help="folder that the pairs' relative paths are in")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--shard-mb", type=at_least(1), default=500, help="megabytes a shard (%(default)s)")
    parser.add_argument("--keep-names", action="store_true", help="call each sample like its video, not by its row")
    parser.add_argument("--workers", type=at_least(0), default=min(os.cpu_count() or 1, 8), help=JOBS_HELP)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Does what the command line asks; a bad one ends it with one line and status 2."""
    options = parse_arguments(arguments)
    try:
        if holds_its_videos(options.source):
            raise ValueError(f"{options.source}: is an index of shards already")
        table = open_source(options.source, options.media)
        with only_writer(options.out):
            plan = plan_shards(options.source, table, options.out, options.shard_mb, options.keep_names)
            failed = make_shards(plan, options.workers)
    except (ValueError, OSError) as error:
        print(f"make_shards: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("make_shards: interrupted; the same command resumes from here", file=sys.stderr)
        raise SystemExit(130) from None

    for reason in failed:
        print(f"make_shards: {reason}", file=sys.stderr)
    missing = int((plan.sizes < 0).sum())
    print(
        f"{options.out}: {len(plan.first_rows) - len(failed)} of {len(plan.first_rows)} shards, {sum(plan.counts)} "
        f"samples, {format_bytes(plan.sizes.clip(0).sum())}; {missing} files missing"
        f"{f' (see {options.out / MISSING})' if missing else ''}; {table.left_out} rows without words left out"
        f"{'; no index until every shard is there, the same command resumes' if failed else ''}"
    )
    raise SystemExit(1 if missing or failed else 0)


if __name__ == "__main__":
    main()
