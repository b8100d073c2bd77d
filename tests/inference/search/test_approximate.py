"""FAISS over an index: what it finds has exact scores, its recall is measured, and it follows the index."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.search import approximate, exact
from inference.search.approximate import FaissIndex, FaissSettings
from inference.search.build_faiss import AIM, build, suggestion, update
from inference.search.exact import Vectors

COUNT, WIDTH = 6000, 32


def clustered(count: int, seed: int = 0) -> NDArray:
    """Vectors of different lengths around 60 centres, as embeddings of videos lie."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((60, WIDTH))
    rows = centres[random.integers(0, 60, count)] + 0.5 * random.standard_normal((count, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True) * random.uniform(0.5, 1.5, (count, 1))).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def stored() -> NDArray:
    return clustered(COUNT)


@pytest.fixture(scope="module")
def folder(stored: NDArray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("made") / "faiss"
    build(made, Vectors(stored), ["sum", 1], FaissSettings(), {"videos": stored[::50], "texts": clustered(40, 5)})
    return made


def queries() -> NDArray:
    return clustered(20, 7)


def recall(found: list[exact.Found], truth: list[exact.Found]) -> float:
    shared = [len(set(a.rows.tolist()) & set(b.rows.tolist())) for a, b in zip(found, truth, strict=True)]
    return sum(shared) / sum(len(best.rows) for best in truth)


def test_scores_are_exact_and_recall_is_as_it_was_measured(folder: Path, stored: NDArray) -> None:
    meta = json.loads((folder / "faiss.json").read_text())
    assert meta["settings"] == {"codes": "sq8", "lists": None, "seed": 0} and meta["lists"] == 64
    assert set(meta["recall"]) == {"videos", "texts"} and meta["recall"]["texts"]["recall@100"] >= AIM
    assert 1 < meta["probes"] < 64

    index, vectors = FaissIndex.open(folder, ["sum", 1]), Vectors(stored)
    truth, found = (one.search(vectors, queries(), 100) for one in (exact, index))
    assert recall(found, truth) > 0.9
    for best, query in zip(found, queries(), strict=True):
        np.testing.assert_array_equal(best.scores, vectors.scores(best.rows, query))
        assert (np.diff(best.scores) <= 0).all()

    # Recall, by hand, is the one that was written.
    texts = clustered(40, 5)
    by_hand = recall(index.search(vectors, texts, 100), exact.search(vectors, texts, 100))
    assert by_hand == pytest.approx(meta["recall"]["texts"]["recall@100"])

    # All lists, and enough candidates: nothing is missed.
    index.probes = 64
    found = index.search(vectors, queries(), 100)
    assert [best.rows.tolist() for best in found] == [best.rows.tolist() for best in truth]


def test_the_lists_stay_on_disk(folder: Path) -> None:
    faiss = approximate.faiss_library()
    (part,) = FaissIndex.open(folder, ["sum", 1]).parts
    assert isinstance(faiss.downcast_InvertedLists(part.invlists), faiss.OnDiskInvertedLists)
    assert part.metric_type == faiss.METRIC_INNER_PRODUCT


@pytest.mark.parametrize("has_windows", [False, True])
def test_filters_and_windows_are_those_of_exact_search(folder: Path, stored: NDArray, has_windows: bool) -> None:
    index, vectors = FaissIndex.open(folder, ["sum", 1]), Vectors(stored)
    index.probes = 64
    allowed = np.random.default_rng(2).random(COUNT) < 0.3
    group = np.repeat(np.arange(COUNT // 20, dtype=np.int32), 20) if has_windows else None
    for most in (10, 200):
        found = index.search(vectors, queries(), most, allowed, group)
        truth = exact.search(vectors, queries(), most, np.flatnonzero(allowed), group)
        assert [best.rows.tolist() for best in found] == [best.rows.tolist() for best in truth]


def test_a_filter_of_what_is_far_from_the_text_finds_enough(folder: Path, stored: NDArray) -> None:
    index, vectors, query = FaissIndex.open(folder, ["sum", 1]), Vectors(stored), queries()[:1]
    furthest = np.argsort(vectors.scores(np.arange(COUNT), query[0]))[:400]
    allowed = np.zeros(COUNT, bool)
    allowed[furthest] = True
    for most in (10, 100, 1000):
        (found,) = index.search(vectors, query, most, allowed)
        (truth,) = exact.search(vectors, query, most, np.sort(furthest))
        assert len(found.rows) == min(most, 400)
        assert recall([found], [truth]) > 0.9


def test_new_and_removed_vectors_need_no_rebuild(stored: NDArray, tmp_path: Path) -> None:
    measured = {"videos": stored[::50]}
    first = build(tmp_path, Vectors(stored), ["a", 1], FaissSettings("flat"), measured)
    parts = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("part-*")}

    # Rows leave, move and come; two of the new ones are equal to each other and to one that is there.
    new = clustered(300, 11)
    new[7] = new[8] = stored[9]
    changed = np.concatenate([new[:150], stored[1000:][::-1], stored[:9], stored[9:500], new[150:]])
    meta = update(tmp_path, Vectors(changed), ["b", 1], None, measured)
    assert (meta["ids"], meta["removed"]) == (COUNT + 300, 500)
    assert len(meta["parts"]) == 2 and meta["trained"] == first["trained"]
    assert parts.items() <= {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("part-*")}.items()

    index = FaissIndex.open(tmp_path, ["b", 1])
    assert sorted(index.rows[index.rows >= 0].tolist()) == list(range(len(changed)))
    index.probes = meta["lists"]
    found, truth = (one.search(Vectors(changed), queries(), 100) for one in (index, exact))
    assert [best.rows.tolist() for best in found] == [best.rows.tolist() for best in truth]
    with pytest.raises(ValueError, match="built from other vectors than the index holds now; bring it up to date with"):
        FaissIndex.open(tmp_path, ["a", 1])

    # What left comes back without a new part, and much change suggests a rebuild.
    again = update(tmp_path, Vectors(stored), ["a", 1], FaissSettings("flat"), measured)
    assert (again["removed"], len(again["parts"])) == (300, 2)
    assert suggestion(again) is None
    few = update(tmp_path, Vectors(stored[:1000]), ["c", 1], None, measured)
    advice = suggestion(few)
    assert advice is not None and advice.startswith(
        "5600 vectors came or left since the lists were trained on 6000, in 2"
    )
    with pytest.raises(ValueError, match="was built with other settings .*; give the same, or --rebuild"):
        update(tmp_path, Vectors(stored), ["a", 1], FaissSettings("sq8"), measured)


@pytest.mark.parametrize("codes", ["flat", "sq8"])
@pytest.mark.parametrize("count", [1, 39, 500])
def test_small_indices(codes: str, count: int, stored: NDArray, tmp_path: Path) -> None:
    meta = build(tmp_path, Vectors(stored[:count]), ["a", 1], FaissSettings(codes), {"videos": stored[:20][:count]})
    assert meta["lists"] == max(1, min(16, count // 40))
    (found,) = FaissIndex.open(tmp_path, ["a", 1]).search(Vectors(stored[:count]), stored[:1], 5)
    assert found.rows[0] == exact.search(Vectors(stored[:count]), stored[:1], 1)[0].rows[0]


def test_too_few_vectors_for_codewords_are_refused(stored: NDArray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes 9984 vectors to train, and there are 6000; give sq8"):
        build(tmp_path, Vectors(stored), ["a", 1], FaissSettings("pq"), {})


@pytest.mark.soak
def test_codes_of_a_quarter_byte_a_number(tmp_path: Path) -> None:
    many = Vectors(np.ascontiguousarray(clustered(10_000)[:, :8]))
    meta = build(tmp_path, many, ["a", 1], FaissSettings("pq"), {"videos": many.stored[::100]})
    (part,) = FaissIndex.open(tmp_path, ["a", 1]).parts
    assert part.code_size == 2 and meta["recall"]["videos"]["recall@10"] > 0.5


def test_without_faiss_one_line_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError("No module named 'faiss'")

    monkeypatch.setattr(approximate.importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"FAISS cannot be imported .*pip install faiss-cpu==1\.15\.1, or search with"):
        FaissIndex.open(folder, ["sum", 1])
