"""Digests of what is trained on, which tell whether a resumed run sees the same rows in the same order.

They depend on names, texts, times and their order, and on nothing that may change under a run: not on where the files
lie, nor when they were written.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from datasets.records import ChoiceRecord, LabelRecord, QuestionRecord, Record

COLUMNS = ("path_bytes", "path_ends", "text_bytes", "text_ends", "text_video", "spans")
"""The arrays of a `PairTable` that say what is trained on; the others say where it lies."""


class TableDigest:
    """The digest of a table whose arrays are written piece by piece; how they are cut does not matter."""

    def __init__(self) -> None:
        self._columns = {name: hashlib.sha256() for name in COLUMNS}

    def update(self, name: str, values: NDArray) -> None:
        """Add the next values of an array; those of other arrays are left out."""
        if name in self._columns:
            self._columns[name].update(np.ascontiguousarray(values).data.cast("B") if values.size else b"")

    def hexdigest(self) -> str:
        """The digest of all arrays as they are now."""
        return join_digests(column.hexdigest() for column in self._columns.values())


def table_digest(columns: Mapping[str, NDArray]) -> str:
    """The digest of a whole table."""
    digest = TableDigest()
    for name in COLUMNS:
        digest.update(name, columns[name])
    return digest.hexdigest()


def records_digest(records: Iterable[Record], names: Iterable[str]) -> str:
    """The digest of records, each with the name that its video has wherever it lies."""
    digest = hashlib.sha256()
    for record, name in zip(records, names, strict=True):
        row: list[object] = [name, record.start, record.end]
        match record:
            case QuestionRecord():
                row += [record.question, record.answers, record.weights]
            case LabelRecord():
                row += [record.label, record.group]
            case ChoiceRecord():
                row += [record.options, record.answer]
            case _:
                row.append(record.captions)
        digest.update(f"{json.dumps(row)}\n".encode())
    return digest.hexdigest()


def join_digests(digests: Iterable[str]) -> str:
    """One digest of several, whose order matters."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()
