"""Runs the chosen checks one after the other in a process beside pytest, and prints their table at the end."""

import platform
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.gpu.checks.outcome import Row
from tests.gpu.checks.table import Rows, line

NO_GPU = "no GPU that PyTorch can use"
ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture(scope="session")
def rows(request: pytest.FixtureRequest) -> Iterator[Rows]:
    """The chosen checks on this machine's GPU; without one, all their tests are skipped."""
    device = request.config.getoption("gpu_checks_on")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip(NO_GPU)
    if hasattr(request.config, "workerinput"):
        pytest.fail("checks of one GPU disturb each other: run them without -n", pytrace=False)

    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    names = [item.callspec.params["name"] for item in items if "rows" in item.fixturenames]
    finished = request.config.stash.setdefault(ROWS, [])
    every = Rows(names, device, finished)
    yield every
    every.close()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table, or one line that says why there is none."""
    finished = config.stash.get(ROWS, [])
    if not finished:
        if any(NO_GPU in str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])):
            terminalreporter.write_line(f"GPU checks skipped: this machine has {NO_GPU}")
        return

    device = config.getoption("gpu_checks_on")
    terminalreporter.section(f"checks on {device}: Python {platform.python_version()}, torch {torch.__version__}")
    width = max(len(row.name) for row in finished)
    for row in finished:
        terminalreporter.write_line(line(row, width))

    counts = Counter(row.status for row in finished)
    terminalreporter.write_line(", ".join(f"{count} {status}" for status, count in counts.items()))
