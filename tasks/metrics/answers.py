"""Accuracy of answers, in percent: exact match with an annotator's answer, overall and per type of question."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from datasets.records import QuestionRecord


def count_answers(records: Iterable[QuestionRecord]) -> dict[str, int]:
    """How often each answer occurs, commonest first; ties are in alphabetical order."""
    counts = Counter(answer for record in records for answer in record.answers)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def accuracies(
    records: Sequence[QuestionRecord], predicted: Sequence[str], spelling: Callable[[str], str]
) -> dict[str, float]:
    """`accuracy`, and `accuracy_TYPE` for each type of question that the records name.

    A prediction is right if it equals any annotator's answer, both normalised by `spelling`.
    """
    right = are_right(records, predicted, spelling)
    kinds: dict[str, list[bool]] = {}
    for record, is_right in zip(records, right, strict=True):
        if record.kind is not None:
            kinds.setdefault(f"accuracy_{slug(record.kind)}", []).append(is_right)
    return {"accuracy": percent(right), **{name: percent(kinds[name]) for name in sorted(kinds)}}


def are_right(
    records: Sequence[QuestionRecord], predicted: Sequence[str], spelling: Callable[[str], str]
) -> list[bool]:
    """Whether each prediction equals an annotator's answer, both normalised by `spelling`."""
    right = []
    for record, given in zip(records, predicted, strict=True):
        right.append(spelling(given) in {spelling(answer) for answer in record.answers})
    return right


def accuracy_names(records: Iterable[QuestionRecord]) -> list[str]:
    """The names of the metrics that `accuracies` returns for these records."""
    kinds = {record.kind for record in records if record.kind is not None}
    return ["accuracy", *sorted(f"accuracy_{slug(kind)}" for kind in kinds)]


def coverage(records: Sequence[QuestionRecord], answers: Iterable[str], spelling: Callable[[str], str]) -> float:
    """The percentage of questions with an annotator's answer among `answers`: the ceiling of any ranking of them."""
    listed = {spelling(answer) for answer in answers}
    return percent([any(spelling(answer) in listed for answer in record.answers) for record in records])


def percent(right: Sequence[bool]) -> float:
    """The percentage of true entries."""
    return 100 * sum(right) / len(right)


def slug(kind: str) -> str:
    """A type of question as part of a metric's name: `spatial relationship` is spatial_relationship."""
    return re.sub(r"[^a-z0-9]+", "_", kind.lower()).strip("_")
