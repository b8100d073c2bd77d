"""The rows that fronts of quality against time are drawn from: one JSON file a comparison, to which anyone can add.

    {"format": 1,
     "rows": [{"encoder": "TESTA, joint",       which encoder, as the figures call it
               "reducer": "tome",                what takes tokens away; "none" is the encoder as it is
               "stage": "off_the_shelf",         or "fine_tuned", with the reducer
               "matched_by": "milliseconds",     or "gmacs": what the schedule was chosen by; null if by neither
               "schedule": "64 tokens a block",
               "gmacs": 0.31,                    of encoding one video
               "milliseconds": 5.2,              the same, on one thread of a CPU
               "mebibytes": 20.1,                peak memory of a batch, beside weights and pixels; null if unknown
               "seeds": [0, 1],
               "recall": [41.0, 43.5],           average of R@1, R@5 and R@10 in percent, one value a seed
               "answers": [],                    accuracy in percent, one value a seed; may be empty
               "changes": {"recall": [-3.1, -5.0, -1.2]}    against "none": mean, lower and upper end of the 95 %
              }, ...]}                                      interval, in points; may be empty

Rows of one encoder can be compared if they are of the same test data and the same machine.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.reducers.report import Row
from benchmarks.reducers.settings import REFERENCE, STAGES, Stage

FORMAT = 1
MATCHED = (None, "gmacs", "milliseconds")
MAY_BE_NULL = ("matched_by", "mebibytes", "milliseconds")


@dataclass(frozen=True, kw_only=True)
class FrontRow:
    """A row as this module's text describes it. Without `milliseconds` it is in the table and in no figure."""

    encoder: str
    reducer: str
    stage: Stage
    matched_by: str | None
    schedule: str
    gmacs: float
    milliseconds: float | None
    mebibytes: float | None
    seeds: list[int]
    recall: list[float]
    answers: list[float]
    changes: dict[str, list[float]]

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"stage {self.stage!r} is not {' or '.join(STAGES)}")
        if self.matched_by not in MATCHED:
            raise ValueError(f"matched_by {self.matched_by!r} is not gmacs, milliseconds or null")
        if not self.seeds or len(self.recall) != len(self.seeds):
            raise ValueError("recall needs one value for each of the seeds, and at least one")
        if any(len(change) != 3 for change in self.changes.values()):
            raise ValueError("changes have a mean, a lower and an upper end each")

    @property
    def is_reference(self) -> bool:
        """Whether nothing is taken away."""
        return self.reducer == REFERENCE


def exported(rows: Sequence[Row], encoder: str, seeds: Sequence[int]) -> dict[str, Any]:
    """The rows of a comparison as a JSON object; seeds are those that retrieval is finished for."""
    found = [
        FrontRow(
            encoder=encoder,
            reducer=row.reducer,
            stage=row.stage,
            matched_by=row.price,
            schedule=row.schedule,
            gmacs=row.gmacs,
            milliseconds=row.milliseconds,
            mebibytes=row.mebibytes,
            seeds=list(seeds),
            recall=row.recall,
            answers=row.metrics["QA"],
            changes=row.changes,
        )
        for row in rows
    ]

    return {"format": FORMAT, "rows": [asdict(row) for row in found]}


def read_rows(path: Path) -> list[FrontRow]:
    """The rows of a file; ValueError names the row and what is wrong with it."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(held, dict) or held.get("format") != FORMAT or not isinstance(held.get("rows"), list):
        raise ValueError(f'{path}: not rows of format {FORMAT}; expected {{"format": {FORMAT}, "rows": [...]}}')

    names = [field.name for field in fields(FrontRow)]
    rows = []
    for number, row in enumerate(held["rows"], start=1):
        if not isinstance(row, dict) or set(row) != set(names):
            raise ValueError(f"{path}: row {number}: expected exactly {', '.join(names)}")
        nulls = [name for name, value in row.items() if value is None and name not in MAY_BE_NULL]
        if nulls:
            raise ValueError(f"{path}: row {number}: {nulls[0]} is null")
        try:
            rows.append(FrontRow(**row))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: row {number}: {error}") from None
    return rows
