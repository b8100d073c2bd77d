"""The growth of search is measured step by step, and what it says of its vectors is so."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.search import STEPS, MadeSpace, parse_arguments, peak_memory


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("vectors")
    given = ["--vectors", "4000", "--width", "16", "--folder", str(folder), "--timed", "3"]
    return {step: STEPS[step](parse_arguments([step, *given])) for step in STEPS}


def test_every_step_says_what_it_measured(steps: dict[str, dict[str, Any]]) -> None:
    exact, faiss = steps["exact"], steps["faiss"]
    assert {step["vectors"] for step in steps.values()} == {4000}
    assert exact["bytes_scanned"] == 4000 * 16 * 2 and exact["same_best_1000_as_float32"]
    assert 100 <= exact["candidates_of_100"] < 200 and exact["least"] <= exact["seconds"] <= exact["most"]
    assert faiss["lists"] == 32 and faiss["recall_when_built"]["texts"]["recall@100"] >= 0.95
    assert steps["filtered"]["one in 10"]["recall"]["recall@10"] > 0.9
    assert faiss["recall"]["recall@100"] > 0.9 and faiss["bytes"] > 4000 * (16 + 8)


def test_vectors_are_the_same_each_time_and_texts_lie_apart() -> None:
    space = MadeSpace(32)
    videos, texts = space.rows(3000, 1), space.texts(500)
    np.testing.assert_array_equal(videos, MadeSpace(32).rows(3000, 1))
    np.testing.assert_allclose(np.linalg.norm(videos, axis=1), 1, rtol=1e-6)
    among, across = (videos @ videos.T).mean(), (videos @ texts.T).mean()
    assert among > across + 0.1
    # Clusters: some neighbours are far nearer than most vectors.
    cosine = videos[:200] @ videos[200:].T
    assert np.quantile(cosine, 0.999) > np.median(cosine) + 0.3


def test_own_memory_leaves_mapped_files_out(tmp_path: Path) -> None:
    size = 64 * 2**20
    np.save(tmp_path / "mapped.npy", np.ones(size, np.uint8))
    with peak_memory() as peak:
        assert int(np.load(tmp_path / "mapped.npy", mmap_mode="r").sum()) == size
        mapped = peak()
        # Not an array: memory that was freed before may be given out again.
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
            held.write(b"1" * size)
            assert peak() >= size - 2**20 > mapped + 2**20
