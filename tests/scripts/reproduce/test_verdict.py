"""What is called a match, and what never is."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from configs.load import to_dict
from models.testa.cost import count
from scripts.parts.row_configs import read_config
from scripts.parts.rows.row import SECOND_HAND
from scripts.parts.rows.testa import PAPER, PUBLICATION, README
from scripts.reproduce import verdict
from scripts.reproduce.verdict import STATUS, judge, report

count_once = cache(count)
ROWS = {row.name: row for row in PUBLICATION.rows}


@pytest.fixture(autouse=True)
def counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each encoder's GMACs are counted once for all tests."""
    monkeypatch.setattr(verdict, "count", count_once)


def results_of(name: str, metrics: dict[str, float], videos: int, **changed: Any) -> dict[str, Any]:
    """results.json as an evaluation of a row writes it."""
    row = ROWS[name]
    return {
        "task": read_config(row).task, "dataset": read_config(row).data.dataset, "split": row.dataset.split,
        "source": "test.csv", "labelled": True, "num_videos": videos, "num_annotated": videos, "num_texts": videos,
        "num_missing": 0,
        "config": to_dict(read_config(row)), "metrics": metrics,
    } | changed  # fmt: skip


def moved(name: str, points: float, source: str = PAPER) -> dict[str, float]:
    return {metric: value + points for metric, value in ROWS[name].expected[source].items()}


@pytest.mark.parametrize(
    ("points", "weights", "expected"),
    [
        (0.0, "released", "match"),
        (0.5, "released", "match"),
        (-0.5, "released", "match"),
        (0.6, "released", "no match"),
        (-0.6, "released", "no match"),
        (-1.5, "trained", "match"),
        (1.6, "given", "no match"),
    ],
)
def test_metrics_have_to_lie_within_the_tolerance(points: float, weights: str, expected: str) -> None:
    judgement = judge(ROWS["didemo_f32"], results_of("didemo_f32", moved("didemo_f32", points), 1004), weights, Path())
    assert judgement.verdict == expected


def test_one_metric_that_is_off_is_enough_and_is_named() -> None:
    metrics = moved("didemo_f96", 0.0) | {"t2v_r5": 80.0}
    judgement = judge(ROWS["didemo_f96"], results_of("didemo_f96", metrics, 1004), "trained", Path())
    assert (judgement.verdict, judgement.reasons) == ("no match", ("paper: t2v_r5 80.0 for 83.5",))


def test_paper_or_readme_is_met_as_a_whole() -> None:
    row = ROWS["queryd_f32"]
    judgement = judge(row, results_of("queryd_f32", row.expected[README], 404), "released", Path())
    assert (judgement.verdict, judgement.reasons[0]) == ("agrees, N not known", "within 0.5 points of the README")
    mixed = row.expected[README] | {"t2v_r5": row.expected[PAPER]["t2v_r5"] + 0.2}
    judgement = judge(row, results_of("queryd_f32", mixed, 404), "released", Path())
    assert judgement.verdict == "no match" and len(judgement.reasons) == 2


def test_few_videos_of_an_unknown_number_are_never_a_match() -> None:
    for videos, points, said in ((5, 0.0, "agrees, N not known"), (5, -0.9, "no match")):
        results = results_of("queryd_f32", moved("queryd_f32", points), videos)
        judgement = judge(ROWS["queryd_f32"], results, "released", Path())
        assert judgement.verdict == said and STATUS[judgement.verdict] != 0
        assert points or f"but {videos} videos may not be those of the row" in judgement.reasons[1]


@pytest.mark.parametrize(
    ("name", "changed"),
    [("didemo_f32", {"rerank": 0}), ("activitynet_qa_f96", {"answers": "train"})],
)
def test_another_way_to_evaluate_is_no_match(name: str, changed: dict[str, Any]) -> None:
    row, config = ROWS[name], to_dict(read_config(ROWS[name]))
    metrics = row.expected[PAPER]
    videos, texts = (1004, 1004) if name.startswith("didemo") else (800, 8000)
    for setting, said in (({"batch_size": 3}, "match"), (changed, "no match")):
        evaluation = {**config["evaluation"], **setting}
        results = results_of(name, metrics, videos, num_texts=texts, config={**config, "evaluation": evaluation})
        judgement = judge(row, results, "released", Path())
        assert judgement.verdict == said
    assert judgement.reasons[0].startswith(f"evaluation.{next(iter(changed))}: ")


DIFFERING = {
    "a video is missing": (
        {"num_videos": 1003, "num_missing": 1},
        "1003 of the 1004 annotated videos were evaluated, 1 are missing or unreadable",
    ),
    "the annotations name fewer": (
        {"num_videos": 1003, "num_annotated": 1003, "num_texts": 1003},
        "1003 annotated videos, officially 1004 (what published results are of; .*)",
    ),
    "a text is missing": ({"num_texts": 1003}, "1003 texts, officially 1004 (what published .*)"),
    "another split": ({"split": "val"}, "evaluated on val; the row is of DiDeMo test"),
}


@pytest.mark.parametrize(("changed", "reason"), DIFFERING.values(), ids=DIFFERING.keys())
def test_perfect_numbers_of_other_videos_are_no_match(changed: dict[str, Any], reason: str) -> None:
    results = results_of("didemo_f32", moved("didemo_f32", 0.0), 1004, **changed)
    judgement = judge(ROWS["didemo_f32"], results, "released", Path())
    assert judgement.verdict == "N differs"
    assert judgement.reasons[0].startswith(reason.partition(".*")[0])


def test_questions_are_counted_besides_videos() -> None:
    row = ROWS["activitynet_qa_f96"]
    whole = results_of(row.name, {"accuracy": 45.3}, 800, num_texts=8000)
    assert judge(row, whole, "trained", Path()).verdict == "match"
    assert judge(row, whole | {"num_texts": 7999}, "trained", Path()).verdict == "N differs"


def test_another_encoder_is_no_match_whatever_its_recall() -> None:
    results = results_of(
        "queryd_f32", moved("queryd_f32", 0.0), 404, config=to_dict(read_config(ROWS["queryd_f32_none"]))
    )
    judgement = judge(ROWS["queryd_f32"], results, "given", Path())
    assert judgement.verdict == "no match"
    assert judgement.reasons == ("786.817 GMACs a video, expected 419.841: another encoder or aggregation",)


def test_a_challenge_ends_in_a_submission_of_all_videos(tmp_path: Path) -> None:
    row = ROWS["condensed_movies_f32"]
    results = results_of(row.name, {}, 1000, labelled=False)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/submission.zip: the evaluation wrote no submission$"):
        judge(row, results, "released", tmp_path)
    (tmp_path / "submission.zip").touch()
    judgement = judge(row, results, "released", tmp_path)
    assert judgement.verdict == "submission" and str(tmp_path / "submission.zip") in judgement.reasons[0]
    assert any(line.split() == ["got", "-", "-", "-"] for line in report(row, results, judgement))
    missing = results | {"num_videos": 999, "num_missing": 1}
    assert judge(row, missing, "released", tmp_path).verdict == "N differs"


def test_labels_of_another_test_set_are_not_the_challenges() -> None:
    row = ROWS["condensed_movies_f32"]
    judgement = judge(row, results_of(row.name, moved(row.name, 0.0), 6593), "released", Path())
    assert judgement.verdict == "N differs" and judgement.reasons[0].startswith("test.csv: has labels; the row is of")


def test_the_report_says_expected_got_and_n() -> None:
    row = ROWS["didemo_f32"]
    results = results_of("didemo_f32", moved("didemo_f32", -0.2), 1004)
    text = "\n".join(report(row, results, judge(row, results, "released", Path())))
    assert "paper         57.7      83.3      89.4" in text and "got           57.5      83.1      89.2" in text
    assert "1004 of 1004 annotated videos, 1004 texts" in text and "419.841, expected 419.841" in text
    assert text.splitlines()[-1] == "verdict    match: within 0.5 points of the paper and the README"


def test_a_row_without_a_published_number_is_never_a_match_and_a_second_hand_source_is_named() -> None:
    row = replace(ROWS["didemo_f32"], expected={}, gmacs=None)
    results = results_of(row.name, moved(row.name, 0.0), 1004)
    judgement = judge(row, results, "released", Path())
    assert judgement.verdict == "nothing published" and STATUS[judgement.verdict] not in (0, 1)
    assert "GMACs      419.841, expected whatever it is" in "\n".join(report(row, results, judgement))
    assert judge(row, results | {"num_texts": 3}, "released", Path()).verdict == "N differs"

    source = f"a leaderboard, {SECOND_HAND}"
    row = replace(row, expected={source: ROWS[row.name].expected[PAPER]})
    judgement = judge(row, results, "released", Path())
    assert (judgement.verdict, judgement.reasons) == ("match", (f"within 0.5 points of the {source}",))
    header, published, *_ = report(row, results, judgement)
    assert published.startswith(source) and len(header) == len(published)
