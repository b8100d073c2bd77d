"""Accuracy of answers on cases small enough to count."""

from datasets.records import QuestionRecord
from tasks.metrics.answers import accuracies, count_answers, coverage


def asked(answers: tuple[str, ...], kind: str | None = None) -> QuestionRecord:
    return QuestionRecord("v.mp4", "what", answers, (1.0,) * len(answers), "0", kind)


RECORDS = [
    asked(("yes",), "yes/no"),
    asked(("no",), "yes/no"),
    asked(("red", "dark red"), "colour of things"),
    asked(("Red",), "colour of things"),
    asked(("two",)),
]


def test_accuracy_counts_exact_matches_with_any_annotator_overall_and_by_type() -> None:
    assert accuracies(RECORDS, ["yes", "yes", "dark red", "red", "two"], str) == {
        "accuracy": 60.0,
        "accuracy_colour_of_things": 50.0,
        "accuracy_yes_no": 50.0,
    }
    assert accuracies(RECORDS, ["no", "yes", "dark", "red ", "2"], str)["accuracy"] == 0.0


def test_both_sides_are_spelled() -> None:
    found = accuracies(RECORDS, ["YES", "no", "RED", "red", "Two"], str.lower)
    assert (found["accuracy"], found["accuracy_colour_of_things"]) == (100.0, 100.0)


def test_answers_are_counted_commonest_first_then_alphabetically() -> None:
    records = [asked(("b",)), asked(("a", "c")), asked(("b", "c")), asked(("d",))]
    assert list(count_answers(records).items()) == [("b", 2), ("c", 2), ("a", 1), ("d", 1)]


def test_coverage_is_the_share_of_questions_with_an_answer_in_the_list() -> None:
    assert coverage(RECORDS, ["dark red", "yes"], str) == 40.0
    assert coverage(RECORDS, ["DARK RED", "yes", "red"], str.lower) == 60.0
