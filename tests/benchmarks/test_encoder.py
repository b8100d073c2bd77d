"""The encoder's benchmark: its cases, and that what they build does the work they name."""

import inspect
import math

import pytest
import torch

from benchmarks import encoder
from benchmarks.child import build
from benchmarks.limit import MachineLimit
from benchmarks.measure import Call, Case, ChildError, Row, Variant
from benchmarks.naive_encoder import NaiveEncoder
from benchmarks.settings import Settings
from models.testa.video_encoder import VideoEncoder

SMALL = (
    "model.depth=2",
    "model.width=32",
    "model.heads=2",
    "model.patch_size=8",
    "video.num_frames=6",
    "video.image_size=32",
    "aggregation.patches_per_block=3",
)
SETTINGS = Settings(None, SMALL, "cpu", 1, 1)


def settings(*overrides: str, device: str = "cpu") -> Settings:
    return Settings(None, (*SMALL[:-1], *overrides), device, 1, 1)


def forward(variant: Variant, module: type[torch.nn.Module] = torch.nn.Module) -> torch.Tensor:
    """What the encoder that a variant builds makes of its pixels."""
    inside = inspect.getclosurevars(build(variant, SETTINGS)).nonlocals
    assert isinstance(inside["encoder"], module) and not inside["encoder"].training
    with torch.no_grad():
        output = inside["encoder"](inside["pixels"])
    return output if isinstance(output, torch.Tensor) else output[0]


def test_cases_are_every_dtype_and_aggregation_against_both_limits() -> None:
    cases = encoder.cases(SETTINGS)
    plain = [case for case in cases if not case.name.endswith(encoder.REFERENCE)]
    assert [case.name for case in plain] == [
        f"encoder {dtype}, 6 frames, batch 1, {aggregation}"
        for dtype in ("fp32", "bf16")
        for aggregation in ("no aggregation", "geometry R_T 1 R_S 3")
    ]
    assert [case.peer is not None for case in plain] == [True, False, True, False]
    assert all(case.naive is not None and case.limit is not None for case in plain)
    assert [case.name for case in cases if case not in plain] == [case.name + encoder.REFERENCE for case in plain]


@pytest.mark.parametrize("case", encoder.cases(SETTINGS), ids=lambda case: case.name)
def test_every_variant_is_built_and_runs(case: Case) -> None:
    for variant in (case.ours, case.naive, case.peer):
        assert variant is None or build(variant, SETTINGS)() is None
    assert case.limit is not None
    limit = build(case.limit, SETTINGS)
    assert isinstance(limit, MachineLimit) and limit.dtype == encoder.DTYPES[case.ours.arguments["dtype"]]
    seconds = limit()
    assert isinstance(seconds, float) and 0 < seconds < math.inf


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_ours_and_the_naive_one_encode_the_same_video_alike(dtype: str) -> None:
    for case in encoder.cases(SETTINGS):
        if case.naive is not None and case.ours.arguments["dtype"] == dtype:
            ours, naive = forward(case.ours, VideoEncoder), forward(case.naive, NaiveEncoder)
            assert ours.dtype == naive.dtype == encoder.DTYPES[dtype]
            if dtype == "fp32":
                torch.testing.assert_close(ours, naive, rtol=0, atol=1e-5)
            assert ours.shape == naive.shape
            if case.peer is not None:
                assert forward(case.peer).shape == ours.shape


def test_the_limit_is_of_the_batch_and_the_products_it_names() -> None:
    (case, reference, *_) = encoder.cases(SETTINGS)
    work = case.ours.arguments
    executed = build(case.limit or case.ours, SETTINGS)
    double = build(Variant(f"{encoder.MODULE}:limit", {**work, "batch": 2}), SETTINGS)
    of_reference = build(reference.limit or case.ours, SETTINGS)
    assert isinstance(executed, MachineLimit) and isinstance(double, MachineLimit)
    assert isinstance(of_reference, MachineLimit)
    assert double.products.linear_macs > 1.9 * executed.products.linear_macs
    assert of_reference.products.linear_macs - executed.products.linear_macs == 2 * 6 * 16 * 32**2


def test_what_the_reference_cannot_do_has_ours_and_its_limit_alone() -> None:
    for overrides in (
        ["model.attention=joint", "aggregation.reducer=tome", "aggregation.tokens_per_block=5"],
        ["aggregation.reducer=importance", "aggregation.patches_per_block=3"],
        ["aggregation.patches_per_block=3", "aggregation.frame_match=mean"],
    ):
        chosen = settings(*overrides)
        last = encoder.cases(chosen)[-1]
        assert (last.naive, last.peer) == (None, None)
        assert last.limit is not None and build(last.ours, chosen)() is None
        assert isinstance(build(last.limit, chosen)(), float)


def test_notes_say_how_much_of_the_saving_is_realised() -> None:
    paper = Settings(None, (), "cpu", 1, 1)
    names = [case.name for case in encoder.cases(paper)]
    seconds = {"fp32": (6.0, 4.0), "bf16": (3.0, 2.5)}
    rows = []
    for name in names:
        row = Row(name, 99.0, None, None, None, None, None, None, None, {})
        if not name.endswith(encoder.REFERENCE):
            row = Row(name, seconds[name[8:12]]["geometry" in name], *[None] * 7, {})
        rows.append(row)
    fp32, bf16 = encoder.notes(paper, rows)[:2], encoder.notes(paper, rows)[2:]
    assert "1.500 times faster" in fp32[0] and "fall 1.874 times (786.8 to 419.8)" in fp32[0]
    assert f"realised {1.5 / (786.817 / 419.841):.3f} of it" in fp32[0]
    assert "fall 1.882 times (741.5 to 394.0)" in fp32[1]
    assert len(bf16) == 2 and all("bf16" in line and "1.200 times faster" in line for line in bf16)
    assert encoder.notes(settings("aggregation.reducer=none"), rows) == []


@pytest.mark.parametrize(
    ("seconds", "batch"),
    [
        ({8: 1.0, 16: 1.5, 32: 2.9, 64: 5.75}, 32),  # 64 gives 1% over 32
        ({8: 1.0, 16: 1.5, 32: "OutOfMemoryError"}, 16),
        ({8 * 2**power: 1.0 for power in range(8)}, 1024),
    ],
)
def test_a_gpu_is_filled_as_long_as_that_pays_and_fits(
    seconds: dict[int, float | str], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calls(variants: list[Variant], settings: Settings) -> list[list[Call]]:
        measured = seconds[variants[0].arguments["batch"]]
        assert [variant.build.rpartition(":")[2] for variant in variants] == ["ours", "naive"]
        if isinstance(measured, str):
            raise ChildError(measured)
        return [[Call(measured, None)], [Call(9.0, None)]]

    monkeypatch.setattr(encoder, "take_turns", calls)
    assert encoder.filling_batch(SETTINGS, "bf16") == batch
    cases = encoder.cases(settings("aggregation.patches_per_block=3", device="cuda"))
    assert len(cases) == 2 * 2 * 3
    assert {case.ours.arguments["batch"] for case in cases} == {batch}
    assert sum(case.ours.arguments.get("compiled", False) for case in cases) == 4


def test_any_other_failure_while_filling_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(variants: list[Variant], settings: Settings) -> list[list[Call]]:
        raise ChildError("something else")

    monkeypatch.setattr(encoder, "take_turns", fail)
    with pytest.raises(ChildError, match="something else"):
        encoder.filling_batch(SETTINGS, "fp32")
