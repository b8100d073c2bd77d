"""What every test shares: few threads, fixed seeds, and the folder of real videos where there is one."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    """Here and not beside the checks, as pytest reads options before it looks into folders."""
    parser.addoption(
        "--gpu-checks-on",
        choices=("cuda", "cpu"),
        default="cuda",
        help="where `-m gpu` runs its checks; cpu tries them out with tiny models",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """One process more than there are cores: a third of the tests' time is waiting, for other processes and clocks."""
    asked = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    return None if asked else len(os.sched_getaffinity(0)) + 1


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """Tests run beside others on small machines, and their tensors are too small to gain from threads."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """No test depends on which ones ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting Java takes longer than small runs, and tests/tasks/metrics looks at it."""
    monkeypatch.setenv("PATH", "")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder named in REAL_DATA, which holds `clips/` and `annotations/`; without it the test is skipped."""
    folder = os.environ.get("REAL_DATA")
    if not folder:
        pytest.skip("REAL_DATA is not set")
    path = Path(folder).resolve()
    assert path.is_dir(), f"REAL_DATA is {folder}, which is no folder"
    return path
