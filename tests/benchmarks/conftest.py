"""What the tests of benchmarks share."""

from types import TracebackType
from typing import Self

import pytest

from benchmarks import growth, load, measure
from benchmarks.child import build, timed
from benchmarks.measure import Call, Variant
from benchmarks.settings import Settings


class InThisProcess:
    """Stands for a `Child`, which takes seconds to start and is looked at in test_measure.py."""

    def __init__(self, variant: Variant, settings: Settings) -> None:
        self.work = build(variant, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def wait_until_built(self) -> None:
        pass

    def call(self) -> Call:
        return Call(timed(self.work, on_gpu=False), 7)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is built and called here; each peak of memory is 7 bytes."""
    for module in (measure, growth, load):
        monkeypatch.setattr(module, "Child", InThisProcess)
