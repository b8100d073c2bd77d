from dataclasses import replace

from benchmarks.reducers.report import Row, spread, table, verdict
from benchmarks.reducers.settings import Finding, Stage


def row(reducer: str, stage: Stage, *recalls: float, answers: tuple[float, ...] = ()) -> Row:
    metrics = {"R@1": [value - 3 for value in recalls], "R@5": list(recalls), "R@10": [value + 3 for value in recalls]}
    return Row(reducer, stage, 0.5, "1 frames a block", {**metrics, "QA": list(answers)})


def asked(better: str = "a", worse: str = "b", stage: Stage = "off_the_shelf") -> Finding:
    return Finding(claim="a beats b", better=better, worse=worse, stage=stage)


def test_a_claim_holds_in_every_seed_or_is_said_not_to() -> None:
    worse = row("b", "off_the_shelf", 40, 50)
    answers = {
        (45.0, 52.0): "yes, 48.5 ± 4.9 and 45.0 ± 7.1, +3.5, in 2 of 2 seeds",
        (45.0, 49.0): "not in every seed, 47.0 ± 2.8 and 45.0 ± 7.1, +2.0, in 1 of 2 seeds",
        (41.0, 45.0): "no, 43.0 ± 2.8 and 45.0 ± 7.1, -2.0, in 1 of 2 seeds",
        (40.0, 50.0): "no, 45.0 ± 7.1 and 45.0 ± 7.1, +0.0, in 0 of 2 seeds",
    }
    for recalls, answer in answers.items():
        said = verdict(asked(), [worse, row("a", "off_the_shelf", *recalls)])
        assert said == f"a beats b (a, b, off the shelf): by recall {answer}"


def test_answers_have_a_verdict_of_their_own() -> None:
    rows = [row("a", "off_the_shelf", 45.0, answers=(30.0,)), row("b", "off_the_shelf", 40.0, answers=(31.0,))]
    said = verdict(asked(), rows)
    assert "by recall yes, 45.0 and 40.0, +5.0, in 1 of 1 seeds; by answers no, 30.0 and 31.0, -1.0, in 0 of 1" in said


def test_what_takes_nothing_away_is_the_same_at_both_stages() -> None:
    rows = [row("none", "fine_tuned", 60.0), row("b", "off_the_shelf", 50.0), row("b", "fine_tuned", 70.0)]
    assert "yes, 60.0 and 50.0" in verdict(asked("none"), rows)
    assert "no, 60.0 and 70.0" in verdict(asked("none", stage="fine_tuned"), rows)


def test_a_claim_is_held_against_the_row_by_gmacs_if_there_is_one() -> None:
    by_time, by_cost = (
        replace(row("a", "off_the_shelf", recall), price=price)
        for recall, price in ((45.0, "milliseconds"), (50.0, "gmacs"))
    )
    worse = row("b", "off_the_shelf", 40.0)
    assert "yes, 45.0 and 40.0" in verdict(asked(), [by_time, worse])
    assert "yes, 50.0 and 40.0" in verdict(asked(), [by_time, by_cost, worse])


def test_a_claim_may_ask_for_points() -> None:
    rows = [row("none", "fine_tuned", 60.0, 70.0), row("b", "off_the_shelf", 50.0, 61.0)]
    asked_for = {5.0: "yes, 65.0", 10.0: "no, 65.0", 9.5: "not in every seed, 65.0"}
    for points, answer in asked_for.items():
        assert f"by recall {answer}" in verdict(replace(asked("none"), points=points), rows)


def test_table_has_every_row_and_leaves_out_what_is_not_measured() -> None:
    timed = replace(row("tome", "off_the_shelf", 50.0, 50.0), price="milliseconds", changes={"recall": [-10, -12, -8]})
    rows = [row("none", "fine_tuned", 60.0, 62.0, answers=(50.0, 50.0)), replace(timed, milliseconds=12.3, mebibytes=3)]
    lines = table(rows)
    assert lines[2] == (
        "| none | - |  | 1 frames a block | 0.500 |  |  | 58.0 ± 1.4 | 61.0 ± 1.4 | 64.0 ± 1.4 | 50.0 ± 0.0 |  |  |"
    )
    assert lines[3].startswith("| tome | off the shelf | ms | 1 frames a block | 0.500 | 12.3 | 3.0 | 47.0 ± 0.0")
    assert lines[3].endswith("|  | -10.0 [-12.0, -8.0] |  |")
    assert {line.count("|") for line in lines} == {14}


def test_spread_of_one_seed_is_its_value() -> None:
    assert spread([12.34]) == "12.3"
