"""Embeddings as a folder of Parquet files, for other programs; needs `pyarrow`.

Columns: row, video, start and end (seconds; null where not given), size (bytes) and modified (UTC) of the file, and
embedding (E float32).
"""

import importlib
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.features.sources import Clip

ROWS_A_FILE, ROWS_AT_ONCE = 2**17, 2**13
"""Rows of one file, and of a block that is in memory."""


def arrow(name: str = "pyarrow") -> ModuleType:
    """The library, or a part of it; ValueError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"--parquet: needs pyarrow ({error}); run `pip install pyarrow`, or leave it out") from error


def write_parquet(clips: Sequence[Clip], embeddings_VE: NDArray, target: Path) -> None:
    """Write the embedding of each clip to files in the folder `target`, which replaces an older one."""
    pyarrow, parquet = arrow(), arrow("pyarrow.parquet")
    schema = pyarrow.schema(
        {
            "row": pyarrow.int64(),
            "video": pyarrow.string(),
            "start": pyarrow.float64(),
            "end": pyarrow.float64(),
            "size": pyarrow.int64(),
            "modified": pyarrow.timestamp("ns", tz="UTC"),
            "embedding": pyarrow.list_(pyarrow.float32(), embeddings_VE.shape[1]),
        }
    )

    temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir()
    for number, first in enumerate(range(0, len(clips), ROWS_A_FILE)):
        end = min(first + ROWS_A_FILE, len(clips))
        with parquet.ParquetWriter(temporary / f"part-{number:05d}.parquet", schema) as writer:
            for start in range(first, end, ROWS_AT_ONCE):
                rows = range(start, min(start + ROWS_AT_ONCE, end))
                columns = _columns(rows, clips[rows.start : rows.stop], embeddings_VE[rows.start : rows.stop])
                writer.write_table(pyarrow.table(columns, schema))

    old = target.with_name(f"{target.name}.{uuid.uuid4().hex}.old")
    if target.exists():
        target.rename(old)
    temporary.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _columns(rows: range, clips: Sequence[Clip], embeddings_VE: NDArray) -> dict[str, Any]:
    pyarrow = arrow()
    flat = pyarrow.array(np.ascontiguousarray(embeddings_VE, np.float32).ravel())
    return {
        "row": list(rows),
        # Arrow takes UTF-8 alone: the bytes of a name that are none become U+FFFD.
        "video": [os.fsencode(clip.video).decode("utf-8", "replace") for clip in clips],
        "start": [clip.start for clip in clips],
        "end": [clip.end for clip in clips],
        "size": [clip.size for clip in clips],
        "modified": [clip.mtime_ns for clip in clips],
        "embedding": pyarrow.FixedSizeListArray.from_arrays(flat, embeddings_VE.shape[1]),
    }
