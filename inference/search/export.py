"""Embeddings of an index with paths, times and tags, as Parquet or LanceDB: for whatever database a user has.

Columns: row, video, start and end (seconds; null where not given), duration (of the whole file), modified (of the
file, UTC), size (bytes), tags, embedding (E float32). Needs `pyarrow`, and `lancedb` for a folder NAME.lance.
"""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.checkpoint_folder import replacing_file
from inference.search.index import VideoIndex

ROWS_AT_ONCE = 2**14
LANCE_WRITER = Path(__file__).with_name("lance_writer.py")
RUN_WRITER = "import runpy, sys; runpy.run_path(sys.argv[1])['main'](*sys.argv[2:])"


def export(index: VideoIndex, target: Path) -> int:
    """Write the index to FILE.parquet or DIR.lance; returns the number of rows.

    ValueError for another suffix, for a target that exists, or if a library is missing.
    """
    if target.suffix not in (".parquet", ".lance"):
        raise ValueError(f"--to: {target} ends in {target.suffix or 'nothing'}; give FILE.parquet or DIR.lance")
    if target.exists():
        raise ValueError(f"--to: {target} exists; remove it, or give another name")
    if target.suffix == ".parquet":
        with replacing_file(target) as temporary:
            write_parquet(index, temporary)
    else:
        _write_lance(index, target)
    return len(index.clips)


def write_parquet(index: VideoIndex, target: Path) -> None:
    """Write the rows block by block, so that they never have to fit in memory."""
    pyarrow, parquet = _library("pyarrow"), _library("pyarrow.parquet")
    width = index.embeddings.shape[1]
    schema = pyarrow.schema(
        [
            pyarrow.field("row", pyarrow.int64()),
            pyarrow.field("video", pyarrow.string()),
            pyarrow.field("start", pyarrow.float64()),
            pyarrow.field("end", pyarrow.float64()),
            pyarrow.field("duration", pyarrow.float64()),
            pyarrow.field("modified", pyarrow.timestamp("ns", tz="UTC")),
            pyarrow.field("size", pyarrow.int64()),
            pyarrow.field("tags", pyarrow.list_(pyarrow.string())),
            pyarrow.field("embedding", pyarrow.list_(pyarrow.float32(), width)),
        ]
    )
    with parquet.ParquetWriter(target, schema) as writer:
        for block in _blocks(index, pyarrow):
            writer.write_table(pyarrow.table(block, schema=schema))


def _blocks(index: VideoIndex, pyarrow: Any) -> Iterator[dict[str, Any]]:
    table, width = index.clips, index.embeddings.shape[1]
    for first in range(0, len(table), ROWS_AT_ONCE):
        rows = range(first, min(first + ROWS_AT_ONCE, len(table)))
        some = slice(rows.start, rows.stop)
        embeddings = np.ascontiguousarray(index.embeddings[some], np.float32)
        size, modified = table.state[some, 0], table.changed[some]
        yield {
            "row": pyarrow.array(rows, pyarrow.int64()),
            # Arrow takes UTF-8 alone: bytes of a name that are none become U+FFFD.
            "video": [os.fsencode(table.path(row)).decode("utf-8", "replace") for row in rows],
            "start": _or_null(pyarrow, table.span[some, 0]),
            "end": _or_null(pyarrow, table.span[some, 1]),
            "duration": _or_null(pyarrow, table.duration[some]),
            "modified": pyarrow.array(np.ascontiguousarray(modified), mask=modified < 0).cast(
                pyarrow.timestamp("ns", tz="UTC")
            ),
            "size": pyarrow.array(np.ascontiguousarray(size), mask=size < 0),
            "tags": [list(table.tags_of_row.get(row, ())) for row in rows],
            "embedding": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(embeddings.ravel()), width),
        }


def _or_null(pyarrow: Any, values: NDArray) -> Any:
    values = np.ascontiguousarray(values)
    return pyarrow.array(values, mask=np.isnan(values))


def _write_lance(index: VideoIndex, target: Path) -> None:
    """Write Parquet, and have another process write it to LanceDB.

    LanceDB takes any module `datasets` for the library of that name, which ours is not.
    """
    if importlib.util.find_spec("lancedb") is None:
        raise ValueError("LanceDB is not installed; pip install lancedb==0.40.0, or export to FILE.parquet")
    target.parent.mkdir(parents=True, exist_ok=True)
    parquet = target.with_name(f"{target.name}.tmp.parquet")
    try:
        write_parquet(index, parquet)
        # -I: the process imports nothing from here.
        words = map(str, (LANCE_WRITER, parquet, target.parent, target.stem))
        command = [sys.executable, "-I", "-c", RUN_WRITER, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        parquet.unlink(missing_ok=True)
    if done.returncode:
        shutil.rmtree(target, ignore_errors=True)
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise ValueError(f"--to: {target} cannot be written ({reason}); export to FILE.parquet instead")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"Parquet cannot be written ({error}); pip install pyarrow==26.0.1") from error
