"""Outcomes of single items give back every metric that was computed from all of them."""

from pathlib import Path

import numpy as np
import pytest

from datasets.records import LabelRecord, QuestionRecord
from tasks.metrics.answers import accuracies, are_right
from tasks.metrics.intervals import Outcomes, replicated
from tasks.metrics.recognition import recognition_metrics
from tasks.metrics.relation import Relation
from tasks.metrics.retrieval import recalls
from tasks.outcomes import (
    answer_outcomes,
    label_outcomes,
    read_outcomes,
    retrieval_outcomes,
    with_intervals,
    write_outcomes,
)


def measured(sets: dict[str, Outcomes], folder: Path) -> dict[str, float]:
    """The metrics of the sets as a file gives them back."""
    write_outcomes(sets, folder / "outcomes.json")
    found: dict[str, float] = {}
    for outcomes in read_outcomes(folder / "outcomes.json").values():
        once = replicated(outcomes, np.ones((1, len(outcomes.items))))
        found |= {name: float(value[0]) for name, value in once.items()}
    return found


def test_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 7, size=40), rng.normal(size=(40, 7))
    records = [
        LabelRecord(f"{tmp_path}/videos/{number}.mp4", int(label), group=f"g{number // 4}")
        for number, label in enumerate(labels)
    ]
    sets = label_outcomes(records, [f"class {number}" for number in range(7)], logits, str(tmp_path))
    assert measured(sets, tmp_path) == pytest.approx(recognition_metrics(logits, labels))
    assert set(sets["videos"].videos) == {f"g{number}" for number in range(10)}
    assert sets["videos"].items[0] == "videos/0.mp4"


def test_questions_of_several_types(tmp_path: Path) -> None:
    records = [
        QuestionRecord("a.mp4", "what?", ("red",), (1.0,), str(number), kind)
        for number, kind in enumerate(["colour", "shape type", None, "colour"])
    ]
    given = ["red", "blue", "red", "green"]
    right = {"accuracy": are_right(records, given, str)}
    sets = {"questions": answer_outcomes(records, right, str(tmp_path))}
    assert measured(sets, tmp_path) == pytest.approx(accuracies(records, given, str))


def test_texts_and_videos_of_both_directions(tmp_path: Path) -> None:
    """Three texts of two videos, one of them about both, and one that no video shows."""
    truth = Relation.of_pairs(np.array([0, 1, 2, 2]), np.array([0, 1, 0, 1]), 4, 2)
    records = [LabelRecord("a.mp4", 0), LabelRecord("b.mp4", 0, start=1.0, end=2.0)]
    ranks = {"": {"t2v": np.array([1, 2, 1, 3]), "v2t": np.array([1, 6])}}
    sets = retrieval_outcomes(ranks, ["x", "y", "z", "of none"], truth, records, str(tmp_path))  # type: ignore[arg-type]
    expected = recalls(ranks[""]["t2v"], "t2v") | recalls(ranks[""]["v2t"], "v2t")
    assert measured(sets, tmp_path) == pytest.approx(expected)
    assert sets["t2v"].items == ["a.mp4: x", "b.mp4 1.0 to 2.0 s: y", "a.mp4: z", "of none"]
    assert list(sets["t2v"].videos) == ["a.mp4", "b.mp4", "a.mp4", "text: of none"]

    result = with_intervals({"metrics": expected}, sets)
    assert result["intervals"]["metrics"].keys() == expected.keys() and "outcomes.json" in result["files"]
