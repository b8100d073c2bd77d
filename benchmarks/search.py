"""How search grows with the number of vectors: exact over float16 copies, and FAISS, on made vectors.

    python -m benchmarks.search make --vectors 1000000 --folder outputs/vectors
    python -m benchmarks.search exact --folder outputs/vectors
    python -m benchmarks.search faiss --folder outputs/vectors
    python -m benchmarks.search filtered --folder outputs/vectors

Each step prints a line of JSON. `make` writes (V, E) float32 vectors and their float16 copies, block by block, 6 E
bytes a vector; delete the folder afterwards. `faiss` builds an index in it and compares it with exact search. Queries
are asked one at a time. `filtered` asks only one vector in ten, and in a hundred, of what `faiss` has built.

The vectors are made to lie as embeddings of videos and texts do: of unit length, around topics of very different sizes
(Zipf), with variance that falls along the axes, and all videos on one side of the space and all texts on another. Real
embeddings may be easier or harder to search.
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.checkpoint_folder import read_json, write_json
from inference.search import exact
from inference.search.approximate import CODES, FAISS, FaissIndex, FaissSettings, faiss_library
from inference.search.build_faiss import build, recalls
from inference.search.exact import Vectors, halve
from scripts.parts.arguments import at_least

STORED, HALF, META = "stored.npy", "half.npy", "made.json"
TOPICS = 2000
NOISE = 0.7
ROWS_AT_ONCE = 2**16
TEXTS_MEASURED, TEXTS_TIMED = 100, 20
MOST = 100


@dataclass(frozen=True)
class Request:
    """A step and what it works on; `codes` and `lists` are those of FAISS."""

    step: str
    folder: Path
    vectors: int
    width: int
    codes: str
    lists: int | None
    timed: int


def parse_arguments(arguments: list[str] | None = None) -> Request:
    """Read the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--folder", type=Path, required=True, help="where the vectors lie")
    parser.add_argument("--vectors", type=at_least(1000), default=100_000, help="to make (%(default)s)")
    parser.add_argument("--width", type=at_least(8), default=256, help="of a vector (%(default)s)")
    parser.add_argument("--codes", choices=CODES, default=FaissSettings.codes, help="of FAISS (%(default)s)")
    parser.add_argument("--lists", type=at_least(1), help="of FAISS; by default about the root of the vectors")
    parser.add_argument("--timed", type=at_least(1), default=TEXTS_TIMED, help="queries timed (%(default)s)")
    given = parser.parse_args(arguments)
    return Request(given.step, given.folder, given.vectors, given.width, given.codes, given.lists, given.timed)


class MadeSpace:
    """A space of topics, in which videos and texts lie."""

    def __init__(self, width: int) -> None:
        random = np.random.default_rng(0)
        self.spread = (1 / np.sqrt(1 + np.arange(width) / 16)).astype(np.float32)
        self.topics = random.standard_normal((TOPICS, width), dtype=np.float32) * self.spread
        self.sides = random.standard_normal((2, width), dtype=np.float32) * self.spread * np.float32(NOISE)
        share = 1 / np.arange(1, TOPICS + 1) ** 0.8
        self.share = share / share.sum()

    def rows(self, count: int, seed: int, *, texts: bool = False) -> NDArray:
        """Unit vectors (count, E) float32 of videos, or of texts."""
        random = np.random.default_rng(seed)
        topic = random.choice(TOPICS, count, p=self.share)
        noise = random.standard_normal((count, len(self.spread)), dtype=np.float32) * self.spread
        rows = self.topics[topic] + np.float32(NOISE) * noise + self.sides[int(texts)]
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def texts(self, count: int) -> NDArray:
        """Queries (count, E)."""
        return self.rows(count, 2**40, texts=True)


def make(request: Request) -> dict[str, Any]:
    """Write the vectors and their copies."""
    request.folder.mkdir(parents=True, exist_ok=True)
    shape, space = (request.vectors, request.width), MadeSpace(request.width)
    begun = time.monotonic()
    stored = np.lib.format.open_memmap(request.folder / STORED, "w+", np.float32, shape)
    for number, first in enumerate(range(0, request.vectors, ROWS_AT_ONCE)):
        count = min(ROWS_AT_ONCE, request.vectors - first)
        stored[first : first + count] = space.rows(count, number)
    stored.flush()

    made = time.monotonic()
    half = np.lib.format.open_memmap(request.folder / HALF, "w+", np.float16, shape)
    margins = halve(stored, half)
    assert margins is not None, "unit vectors fit into float16"
    half.flush()
    meta = {"vectors": request.vectors, "width": request.width, "rounding": margins[0], "norm": margins[1]}
    write_json(request.folder / META, meta)
    return meta | {"seconds": made - begun, "seconds_halved": time.monotonic() - made}


def opened(folder: Path) -> tuple[Vectors, NDArray]:
    """The vectors of a folder, and texts to ask for."""
    meta = read_json(folder / META)
    stored, half = np.load(folder / STORED, mmap_mode="r"), np.load(folder / HALF, mmap_mode="c")
    vectors = Vectors(stored, half, meta["rounding"], meta["norm"])
    return vectors, MadeSpace(meta["width"]).texts(TEXTS_MEASURED)


def measure_exact(request: Request) -> dict[str, Any]:
    """Seconds a query of exact search: from disk, from the cache of the file system, and of float32 for comparison."""
    forget(request.folder / HALF)
    vectors, texts = opened(request.folder)
    with peak_memory() as peak:
        first = timed(exact.search, vectors, texts[:1], MOST)
        cached = [timed(exact.search, vectors, text[None], MOST) for text in texts[: request.timed]]
        candidates = candidates_of(vectors, texts[0])

    float32 = Vectors(vectors.stored, known_norm=vectors.norm)
    exact.search(float32, texts[:1], MOST)
    whole = [timed(exact.search, float32, text[None], MOST) for text in texts[:3]]
    best = [
        [exact.search(some, text[None], 1000)[0].rows.tolist() for text in texts[:3]] for some in (vectors, float32)
    ]
    return {
        "vectors": len(vectors),
        **medians([first], "seconds_from_disk"),
        **medians(cached),
        "least": min(cached).wall,
        "most": max(cached).wall,
        **medians(whole, "seconds_float32"),
        "candidates_of_100": candidates,
        "same_best_1000_as_float32": best[0] == best[1],
        "bytes_scanned": vectors.half.nbytes if vectors.half is not None else 0,
        "own_memory": peak(),
    }


def candidates_of(vectors: Vectors, text: NDArray) -> int:
    """How many rows are scored again in float32 for the best `MOST`."""
    scored: list[int] = []

    class Counting(Vectors):
        def scores(self, rows: NDArray, query: NDArray) -> NDArray:
            scored.append(len(rows))
            return super().scores(rows, query)

    exact.search(Counting(vectors.stored, vectors.half, vectors.rounding, vectors.known_norm), text[None], MOST)
    return sum(scored)


def measure_faiss(request: Request) -> dict[str, Any]:
    """Build an index, then the seconds of a query and its recall."""
    faiss_library().omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    vectors, texts = opened(request.folder)
    folder = request.folder / f"{FAISS}-{request.codes}"
    settings = FaissSettings(request.codes, request.lists)
    step = -(-len(vectors) // TEXTS_MEASURED)
    queries = {"texts": texts[TEXTS_MEASURED // 2 :], "videos": np.asarray(vectors.stored[::step])}

    with peak_memory() as peak:
        begun, cpu_begun = time.monotonic(), time.process_time()
        meta = build(folder, vectors, ["made", len(vectors)], settings, queries)
        took = Times(time.monotonic() - begun, time.process_time() - cpu_begun)
        built = peak()

    # Recall of texts that the number of probes was not chosen by.
    index, asked = FaissIndex.open(folder, ["made", len(vectors)]), texts[: TEXTS_MEASURED // 2]
    truth = exact.search(vectors, asked, MOST)
    with peak_memory() as peak:
        found = [index.search(vectors, text[None], MOST)[0] for text in asked]
        cached = [timed(index.search, vectors, text[None], MOST) for text in asked]
        alone = [timed(index.candidates, text[None], MOST) for text in asked]
    return {
        "vectors": len(vectors),
        "codes": request.codes,
        "lists": meta["lists"],
        "probes": meta["probes"],
        **medians([took], "build_seconds"),
        "build_own_memory": built,
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        **medians(cached),
        "most": max(cached).wall,
        **medians(alone, "seconds_of_lists_alone"),
        "own_memory": peak(),
        "recall": recalls(truth, found),
        "recall_when_built": meta["recall"],
    }


def measure_filtered(request: Request) -> dict[str, Any]:
    """Seconds of exact search and of FAISS among random shares of the vectors, and what FAISS finds of the exact."""
    vectors, texts = opened(request.folder)
    index = FaissIndex.open(request.folder / f"{FAISS}-{request.codes}", ["made", len(vectors)])
    measured: dict[str, Any] = {"vectors": len(vectors), "codes": request.codes}
    for one_in in (10, 100):
        allowed = np.random.default_rng(one_in).random(len(vectors)) < 1 / one_in
        rows, asked = np.flatnonzero(allowed), texts[: request.timed]
        truth = [exact.search(vectors, text[None], MOST, rows)[0] for text in asked]
        found = [index.search(vectors, text[None], MOST, allowed)[0] for text in asked]
        measured[f"one in {one_in}"] = {
            **medians((timed(exact.search, vectors, text[None], MOST, rows) for text in asked), "exact_seconds"),
            **medians((timed(index.search, vectors, text[None], MOST, allowed) for text in asked), "faiss_seconds"),
            "recall": recalls(truth, found),
        }
    return measured


class Times(NamedTuple):
    """Seconds that passed, and seconds of the processor in all threads, which a shared machine changes less."""

    wall: float
    cpu: float


def timed(work: Callable[..., Any], *arguments: Any) -> Times:
    """The times that some work takes."""
    begun, cpu_begun = time.perf_counter(), time.process_time()
    work(*arguments)
    return Times(time.perf_counter() - begun, time.process_time() - cpu_begun)


def medians(times: Iterable[Times], name: str = "seconds") -> dict[str, float]:
    """The median of each kind, by name."""
    listed = list(times)
    return {name: median(some.wall for some in listed), f"{name}_cpu": median(some.cpu for some in listed)}


def forget(path: Path) -> None:
    """Drop a file from the cache of the file system."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Gives a function that returns how many bytes the process's own memory has grown at most, without mapped files."""
    before = own_memory()
    peak, over = [before], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], own_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: max(peak[0], own_memory()) - before
    finally:
        over.set()
        watcher.join()


def own_memory() -> int:
    """Anonymous resident memory of this process, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


STEPS: dict[str, Callable[[Request], dict[str, Any]]] = {
    "make": make,
    "exact": measure_exact,
    "faiss": measure_faiss,
    "filtered": measure_filtered,
}


def main() -> None:
    """Take a step and print what it gave."""
    request = parse_arguments()
    print(json.dumps({"step": request.step, **STEPS[request.step](request)}))


if __name__ == "__main__":
    main()
