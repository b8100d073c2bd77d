"""What the other tests can only hold on a CPU, checked on a GPU: `pytest -m gpu`, which ends with one table.

A check is a row of the table: what was measured, and the bound it is to keep. A check that lacks a package is skipped
and names it. A goal of speed that is not reached is an expected failure (`missed` in the table). A check that hangs or
takes its process along has failed; the next one gets another process.
"""

from collections.abc import Callable

import pytest

from tests.gpu.checks.outcome import Row
from tests.gpu.checks.table import CHECKS, Rows, measured


@pytest.mark.gpu
@pytest.mark.parametrize("name", CHECKS)
def test_on_gpu(name: str, rows: Rows, record_property: Callable[[str, object], None]) -> None:
    row = rows.row(name)
    for what, value in row.as_json().items():
        record_property(what, value)
    settle(row)


def settle(row: Row) -> None:
    """End a test as the row of its check has ended."""
    if row.status == "failed":
        pytest.fail(measured(row), pytrace=False)
    if row.status == "missed":
        pytest.xfail(f"a goal of speed was missed: {measured(row)}")
    if row.status == "skipped":
        pytest.skip(row.note)
