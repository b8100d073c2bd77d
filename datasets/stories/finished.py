"""A folder of made videos that is there as a whole or not at all, with a record of what determined it."""

import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

Job = TypeVar("Job")
JOBS_AT_ONCE = 8
"""Videos that a worker process is given at a time."""


def make_whole(out: Path, record_name: str, wanted: Mapping[str, Any], write: Callable[[Path], None]) -> bool:
    """Have `write` fill a new folder, add the record, and rename it to `out`; False if `out` is there already.

    An interrupted call leaves nothing behind. ValueError if `out` holds anything else than what is wanted.
    """
    if is_finished(out, record_name, wanted):
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        folder = Path(temporary) / "set"
        folder.mkdir()
        write(folder)
        (folder / record_name).write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        folder.rename(out)
    return True


def is_finished(
    out: Path, record_name: str, wanted: Mapping[str, Any], unrecorded: Mapping[str, Any] | None = None
) -> bool:
    """Whether `out` holds a set made with the wanted arguments; ValueError if it holds another, or something else.

    `unrecorded` are the arguments of sets whose record is older than these arguments.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    record = out / record_name
    if not record.is_file():
        raise ValueError(f"{out} exists and is no {_kind(record_name)}; name a new folder")
    try:
        found = {**(unrecorded or {}), **json.loads(record.read_text(encoding="utf-8"))}
    except json.JSONDecodeError as error:
        raise ValueError(f"{record} cannot be read ({error}); delete {out} or name a new folder") from error

    different = [
        f"{name} {found.get(name)} instead of {value}" for name, value in wanted.items() if found.get(name) != value
    ]
    if different:
        raise ValueError(f"{out} was made with {', '.join(different)}; delete it or name a new folder")
    return True


def _kind(record_name: str) -> str:
    return record_name.removesuffix(".json").replace("_", " ")


def made_by(make_video: Callable[[Job], None], jobs: Sequence[Job], workers: int) -> Iterator[None]:
    """Make all videos, in so many processes; yields after each of them."""
    if workers == 1:
        yield from map(make_video, jobs)
        return
    # Spawned, not forked: the caller may have threads.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(make_video, jobs, chunksize=JOBS_AT_ONCE)


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a JSONL file of annotations."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def option(name: str) -> str:
    """The command-line option of an argument of a set."""
    return "--" + name.replace("_", "-")
