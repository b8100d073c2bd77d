"""Build the lists of `inference/search/approximate.py`, bring them up to date, and measure what they find."""

import logging
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.checkpoint_folder import read_json, write_json
from inference.search.approximate import CODES, FORMAT, META, TEXTS, FaissIndex, FaissSettings, faiss_library
from inference.search.exact import Found, Vectors, search

logger = logging.getLogger(__name__)
PART_ROWS = 2**22
ROWS_AT_ONCE = 2**16
TRAINED_ON = 64
"""Vectors for each inverted list that the centroids are trained on."""
CODEC_TRAINED_ON = 2**14
"""Vectors, at least, that a codec is trained on, if there are so many."""
FEWEST_FOR_PQ = 39 * 256
"""Vectors that `pq` takes: FAISS wants so many for 256 codewords, and is slow with fewer."""
AIM = 0.95
"""Recall at 100 that the number of probed lists is chosen for."""
RECALLS = (10, 100)
CHANGED_TOO_MUCH = 0.2
"""Above this share of vectors that came or left since the centroids were trained, a rebuild is suggested."""
MANY_PARTS = 32


def build(
    folder: Path, vectors: Vectors, made_from: list[Any], settings: FaissSettings, queries: Mapping[str, NDArray]
) -> dict[str, Any]:
    """Train lists for the vectors, fill them, and measure recall; returns faiss.json.

    `made_from` is the checksum and size of the file of embeddings. `queries` are embeddings (Q, E) by name that recall
    is measured with.
    """
    faiss = faiss_library()
    folder.mkdir(parents=True, exist_ok=True)
    total, width = vectors.stored.shape
    lists = settings.number_of_lists(total)
    if settings.codes == "pq" and total < FEWEST_FOR_PQ:
        raise ValueError(f"--codes pq: takes {FEWEST_FOR_PQ} vectors to train, and there are {total}; give sq8")

    trained = faiss.index_factory(width, f"IVF{lists},{CODES[settings.codes](width)}", faiss.METRIC_INNER_PRODUCT)
    size = min(total, max(TRAINED_ON * lists, CODEC_TRAINED_ON))
    sample = np.sort(np.random.default_rng(settings.seed).choice(total, size, replace=False))
    logger.info("training %d lists on %d of %d vectors", lists, size, total)
    trained.cp.seed = settings.seed + 1
    trained.train(np.ascontiguousarray(vectors.stored[sample], np.float32))
    name = f"trained-{uuid.uuid4().hex}.faiss"
    faiss.write_index(trained, str(folder / name))

    parts = []
    for first in range(0, total, PART_ROWS):
        rows = np.arange(first, min(first + PART_ROWS, total))
        parts.append(_write_part(folder, name, vectors.stored, rows, first))

    meta = {
        "format": FORMAT,
        "faiss": faiss.__version__,
        "settings": asdict(settings),
        "lists": lists,
        "trained_on": total,
        "trained": name,
        "parts": parts,
        "probes": 1,
    }
    return _finish(folder, meta, vectors, made_from, (np.arange(total), keys_of(vectors.stored)), queries)


def update(
    folder: Path,
    vectors: Vectors,
    made_from: list[Any],
    settings: FaissSettings | None,
    queries: Mapping[str, NDArray],
) -> dict[str, Any]:
    """Add the vectors that came since and mark those that left; returns faiss.json.

    ValueError if `settings` are given and are not those it was built with.
    """
    meta = read_json(folder / META)
    if settings is not None and asdict(settings) != meta["settings"]:
        raise ValueError(f"{folder}: was built with other settings ({meta['settings']}); give the same, or --rebuild")
    known_keys = np.load(folder / meta["keys"])
    keys = keys_of(vectors.stored)

    # Equal vectors have equal keys: the first of them is matched with the first, and so on.
    row_of_key, id_of_key = _numbered(keys), _numbered(known_keys)
    order = np.argsort(id_of_key, kind="stable")
    place = np.searchsorted(id_of_key[order], row_of_key)
    found = order[np.minimum(place, len(order) - 1)]
    is_known = id_of_key[found] == row_of_key

    rows = np.full(len(known_keys), -1, np.int64)
    rows[found[is_known]] = np.flatnonzero(is_known)
    new = np.flatnonzero(~is_known)
    if len(new):
        parts = [
            _write_part(folder, meta["trained"], vectors.stored, new[first : first + PART_ROWS], len(rows) + first)
            for first in range(0, len(new), PART_ROWS)
        ]
        meta = meta | {"parts": [*meta["parts"], *parts]}
    ids = np.concatenate([rows, new]), np.concatenate([known_keys, keys[new]])
    return _finish(folder, meta, vectors, made_from, ids, queries)


def suggestion(meta: Mapping[str, Any]) -> str | None:
    """A sentence that suggests a rebuild, if much has changed since the lists were trained; else None."""
    changed = meta["removed"] + max(0, meta["ids"] - meta["trained_on"])
    if changed <= CHANGED_TOO_MUCH * meta["trained_on"] and len(meta["parts"]) <= MANY_PARTS:
        return None
    return (
        f"{changed} vectors came or left since the lists were trained on {meta['trained_on']}, in "
        f"{len(meta['parts'])} parts; build-faiss INDEX --rebuild trains them again"
    )


def keys_of(stored: NDArray) -> NDArray:
    """A hash (V,) uint64 of each float32 vector (V, E): its words times fixed odd numbers, summed modulo 2^64."""
    factors = np.random.default_rng(0).integers(0, 2**63, stored.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(
        1
    )
    keys = np.empty(len(stored), np.uint64)
    for first in range(0, len(stored), ROWS_AT_ONCE):
        block = np.ascontiguousarray(stored[first : first + ROWS_AT_ONCE], np.float32)
        keys[first : first + ROWS_AT_ONCE] = (block.view(np.uint32).astype(np.uint64) * factors).sum(axis=1)
    return keys


def _numbered(keys: NDArray) -> NDArray:
    """The keys (V,), each changed by how many equal ones stand before it, so that all differ."""
    order = np.argsort(keys, kind="stable")
    ascending = keys[order]
    is_first = np.ones(len(keys), bool)
    is_first[1:] = ascending[1:] != ascending[:-1]
    position = np.arange(len(keys))
    run_start = np.maximum.accumulate(np.where(is_first, position, 0))

    numbered = np.empty_like(keys)
    numbered[order] = ascending + (position - run_start).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return numbered


def _write_part(folder: Path, trained: str, stored: NDArray, rows: NDArray, first_id: int) -> str:
    """Encode some rows into a new part, with ids from `first_id` on; returns the file's name."""
    faiss = faiss_library()
    part = faiss.read_index(str(folder / trained))
    for first in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[first : first + ROWS_AT_ONCE]
        ids = np.arange(first_id + first, first_id + first + len(some))
        part.add_with_ids(np.ascontiguousarray(stored[some], np.float32), ids)
        logger.info("part from id %d: %d of %d vectors", first_id, first + len(some), len(rows))
    name = f"part-{uuid.uuid4().hex}.faiss"
    faiss.write_index(part, str(folder / name))
    return name


def _finish(
    folder: Path,
    meta: dict[str, Any],
    vectors: Vectors,
    made_from: list[Any],
    ids: tuple[NDArray, NDArray],
    queries: Mapping[str, NDArray],
) -> dict[str, Any]:
    """Write rows and keys of all ids, measure recall, and switch to the new files by writing faiss.json."""
    rows, keys = ids
    stamp = uuid.uuid4().hex
    names = {"rows": f"rows-{stamp}.npy", "keys": f"keys-{stamp}.npy"}
    np.save(folder / names["rows"], rows)
    np.save(folder / names["keys"], keys)

    meta = meta | names | {"made_from": made_from, "ids": len(rows), "removed": int((rows < 0).sum())}
    probes, recall = choose_probes(FaissIndex(folder, meta), vectors, queries)
    meta = meta | {"probes": probes, "recall": recall}
    write_json(folder / META, meta)

    # Files of earlier builds and updates are not used any more.
    used = {META, TEXTS, meta["trained"], meta["rows"], meta["keys"], *meta["parts"]}
    for path in folder.iterdir():
        if path.name not in used:
            path.unlink()
    return meta


def choose_probes(
    index: FaissIndex, vectors: Vectors, queries: Mapping[str, NDArray]
) -> tuple[int, dict[str, dict[str, float]]]:
    """The smallest power of two of probed lists that reaches AIM for all queries, and the recall with it.

    Recall at k is the share of the k best rows of exact search that are among the k best here.
    """
    truth = {name: search(vectors, some, max(RECALLS)) for name, some in queries.items()}
    probes = 1
    while True:
        index.probes = probes
        recall = {
            name: recalls(truth[name], index.search(vectors, some, max(RECALLS))) for name, some in queries.items()
        }
        if probes >= index.meta["lists"] or all(kind[f"recall@{max(RECALLS)}"] >= AIM for kind in recall.values()):
            return probes, recall
        probes *= 2


def recalls(truth: list[Found], found: list[Found]) -> dict[str, float]:
    """The share of the first k rows of `truth` that are among the first k of `found`, for each k of RECALLS."""
    shares = {}
    for k in RECALLS:
        shared = [
            len(np.intersect1d(best.rows[:k], other.rows[:k])) / max(1, len(best.rows[:k]))
            for best, other in zip(truth, found, strict=True)
        ]
        shares[f"recall@{k}"] = float(np.mean(shared))
    return shares
