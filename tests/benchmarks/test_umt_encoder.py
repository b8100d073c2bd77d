"""The joint encoder's benchmark: the naive way is the same computation, and every variant does the work it names."""

import pytest
import torch

from benchmarks.child import build
from benchmarks.measure import Row
from benchmarks.settings import Settings
from benchmarks.umt import encoder as benchmark
from benchmarks.umt.encoder import Work, case_of
from benchmarks.umt.naive_encoder import NaiveJointEncoder
from tests.models.umt.tiny import SCHEDULE, clips, encoder

SETTINGS = Settings(None, (), "cpu", 1, 1)
SMALL = {"depth": 3, "width": 32, "heads": 2, "patch_size": 8, "image_size": 32}


@pytest.mark.parametrize("amounts", [0, SCHEDULE, (0, 12, 0, 3)])
@torch.no_grad()
def test_the_naive_encoder_equals_ours(amounts: int | tuple[int | float, ...]) -> None:
    ours = encoder(amounts)
    torch.testing.assert_close(NaiveJointEncoder(ours)(clips()), ours(clips()).tokens, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reduces", [False, True])
def test_every_variant_is_built_and_runs(reduces: bool) -> None:
    case = case_of(Work(6, "fp32", reduces, **SMALL))
    assert (case.peer is None) == reduces
    for variant in (case.ours, case.naive, case.peer):
        assert variant is None or build(variant, SETTINGS)() is None
    assert case.limit is not None and build(case.limit, SETTINGS)() > 0


def test_cases_are_both_lengths_and_formats_without_and_with_the_list() -> None:
    names = [case.name for case in benchmark.cases(SETTINGS)]
    assert len(names) == 8 and names[1] == "encoder fp32, 12 frames, saliency [600, 200, 100]"
    assert names[-1] == "encoder bf16, 48 frames, saliency [2400, 800, 400]"
    with pytest.raises(ValueError, match="--system umt"):
        benchmark.cases(Settings(None, ("video.num_frames=4",), "cpu", 1, 1))


def test_what_is_realised_by_hand() -> None:
    def row(work: Work, seconds: float) -> Row:
        return Row(f"umt {work.name}", seconds, None, None, None, None, None, None, None, {})

    rows = [row(Work(12, "fp32", False), 3.033), row(Work(12, "fp32", True), 2.0)]
    (line,) = benchmark.notes(SETTINGS, rows)
    # 303.3 and 178.0 GMACs.
    assert "1.516 times faster" in line and "fall 1.704 times: realised 0.890" in line
