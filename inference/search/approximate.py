"""Approximate search with FAISS (optional): an inverted file over the vectors of an index, memory-mapped.

faiss/ of an index is made by `python -m scripts.search build-faiss INDEX`:

trained-*.faiss   centroids of the inverted lists and the codec, without vectors
part-*.faiss      inverted lists of some million vectors each: the first build's, then one for each update
rows-*.npy        the row of each FAISS id in the embeddings, -1 if it left: a tombstone
keys-*.npy        a hash of each id's vector, to know it again when rows move
texts.npy         embeddings of texts that recall is measured with, where a checkpoint made some
faiss.json        settings, recall, the files in use, and the checksum of the embeddings they were made from

Similarity is the inner product, as everywhere: embeddings need not have length 1. FAISS only chooses candidates; the
stored float32 vectors bring them into order, so what is found has the scores of exact search. An update encodes new
vectors into one more part and marks the rows that left; nothing already there is written again (`build_faiss.py`).
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engine.checkpoint_folder import read_json
from inference.search.exact import Found, Vectors

FAISS, META, TEXTS = "faiss", "faiss.json", "texts.npy"
FORMAT = 1
CODES: dict[str, Callable[[int], str]] = {
    "flat": lambda width: "Flat",
    "sq8": lambda width: "SQ8",
    "pq": lambda width: f"PQ{max(1, width // 4)}x8",
}
"""How FAISS stores a vector, by name: float32, a byte a number, or a byte for four numbers."""
CANDIDATES = 4
"""Candidates for each result, which the stored vectors bring into order; at least `FEWEST_CANDIDATES`."""
FEWEST_CANDIDATES = 256


def faiss_library() -> Any:
    """FAISS; ValueError if it is not installed."""
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise ValueError(
            f"FAISS cannot be imported ({error}); pip install faiss-cpu==1.15.1, or search with --engine exact"
        ) from error


@dataclass(frozen=True)
class FaissSettings:
    """How an index is built.

    Attributes:
        codes: a name of CODES.
        lists: how many inverted lists; None for the largest power of two up to the root of the number of vectors.
        seed: of the sample that the centroids are trained on.
    """

    codes: str = "sq8"
    lists: int | None = None
    seed: int = 0

    def number_of_lists(self, vectors: int) -> int:
        """Lists for so many vectors: never more than can be trained."""
        wanted = 2 ** int(np.log2(max(1.0, np.sqrt(vectors)))) if self.lists is None else self.lists
        return int(max(1, min(wanted, vectors // 40)))


class FaissIndex:
    """Inverted lists over the vectors of an index, mapped from disk."""

    def __init__(self, folder: Path, meta: dict[str, Any]) -> None:
        self.folder, self.meta = folder, meta
        self.probes: int = meta["probes"]
        self.rows: NDArray = np.load(folder / meta["rows"], mmap_mode="r")

    @classmethod
    def open(cls, folder: Path, made_from: list[Any]) -> Self:
        """Map what is in a folder.

        ValueError if it was made from other embeddings than `made_from` says, or if FAISS is not installed.
        """
        faiss_library()
        meta = read_json(folder / META)
        if meta.get("format") != FORMAT:
            raise ValueError(f"{folder}: is of another version; make it again: build-faiss INDEX --rebuild")
        if meta["made_from"] != made_from:
            raise ValueError(
                f"{folder}: was built from other vectors than the index holds now; bring it up to date with "
                "python -m scripts.search build-faiss INDEX, or search with --engine exact"
            )
        return cls(folder, meta)

    @cached_property
    def parts(self) -> list[Any]:
        """The parts, read when first needed; their lists stay on disk."""
        faiss = faiss_library()
        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        return [faiss.read_index(str(self.folder / name), flags) for name in self.meta["parts"]]

    @property
    def removed(self) -> int:
        """How many vectors in the lists belong to no row any more."""
        return int(self.meta["removed"])

    @cached_property
    def _present(self) -> NDArray:
        """Whether each id still belongs to a row, (ids,) bool."""
        return self.rows >= 0

    def candidates(
        self, queries: NDArray, most: int, allowed: NDArray | None = None, probes: int | None = None
    ) -> list[NDArray]:
        """About `most` rows for each query (Q, E) that are probably its nearest, in no order.

        `allowed` (V,) bool selects rows. `probes` lists are read, by default as many as were chosen at the build.
        """
        faiss = faiss_library()
        bits, selector = None, None
        if allowed is not None or self.removed:
            ids = self._present if allowed is None else self._present & allowed[self.rows]
            bits = np.packbits(ids, bitorder="little")  # FAISS only points to it, so it must live until the end
            selector = faiss.IDSelectorBitmap(len(self.rows), faiss.swig_ptr(bits))

        parameters = faiss.SearchParametersIVF(nprobe=min(probes or self.probes, self.meta["lists"]), sel=selector)
        queries = np.ascontiguousarray(queries, np.float32)
        scored = [part.search(queries, most, params=parameters) for part in self.parts]
        del bits

        values = np.concatenate([value for value, _ in scored], axis=1)
        ids = np.concatenate([found for _, found in scored], axis=1)
        best = np.argsort(-values, axis=1, kind="stable")[:, :most]
        ids = np.take_along_axis(ids, best, axis=1)
        return [self.rows[row[row >= 0]] for row in ids]

    def search(
        self,
        vectors: Vectors,
        queries: NDArray,
        most: int,
        allowed: NDArray | None = None,
        group: NDArray | None = None,
    ) -> list[Found]:
        """The best `most` rows for each query (Q, E), as `exact.search` returns them, but some may be missed.

        `allowed` (V,) bool selects rows. With `group` (V,), each video is found once. More lists and candidates are
        looked at until there are enough results, or no more to find.
        """
        lists, limit = self.meta["lists"], len(self.rows)
        wanted, probes = min(max(CANDIDATES * most, FEWEST_CANDIDATES), limit), self.probes
        if allowed is not None:
            # As many rows that pass the filter are compared as without it.
            probes = min(lists, round(probes * len(allowed) / max(1, int(allowed.sum()))))

        while True:
            listed = self.candidates(queries, wanted, allowed, probes)
            found = [vectors.in_order(rows, query, most, group) for rows, query in zip(listed, queries, strict=True)]
            is_cut = any(len(rows) >= wanted for rows in listed) and wanted < limit
            if all(len(best.rows) >= most for best in found) or (probes >= lists and not is_cut):
                return found
            wanted, probes = min(4 * wanted, limit) if is_cut else wanted, min(4 * probes, lists)
