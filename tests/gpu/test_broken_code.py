"""Each check sees what it is there for: with the code broken in one place, the reading of that is over its bound."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.distributed import all_gather_rows
from models.parts import attention as attention_module
from models.parts.aggregation import MergePlan
from models.parts.momentum import FeatureQueue
from models.testa import blocks, video_encoder
from models.testa.model import VisionLanguageModel
from tests.gloo import run_ranks
from tests.gpu.checks import attention, collectives, compiled, formats, parity, training
from tests.gpu.checks.models import PretrainingStep
from tests.gpu.checks.outcome import CannotRun, Finding, difference, distance, gradient_difference, not_finite, worst
from tests.gpu.checks.sizes import SIZES

CPU, TINY = torch.device("cpu"), SIZES["tiny"]


def broken(finding: Finding) -> set[str]:
    """What does not keep its bound."""
    return {reading.what for reading in finding.readings if not reading.holds}


def first_model_changed(
    monkeypatch: pytest.MonkeyPatch, module: Any, change: Callable[[VisionLanguageModel], None]
) -> None:
    """Of the models that a check compares, the one on the device is made another one."""
    original, count = module.build_model, itertools.count()

    def build(*arguments: Any, **settings: Any) -> VisionLanguageModel:
        model = original(*arguments, **settings)
        if next(count) == 0:
            change(model)
        return model

    monkeypatch.setattr(module, "build_model", build)


@torch.no_grad()
def nudge(model: VisionLanguageModel) -> None:
    for parameter in model.parameters():
        parameter.mul_(1.003)


def wrong_gradient(model: VisionLanguageModel) -> None:
    """Forward as it was; one weight's gradient a hundredth too large."""
    model.visual_encoder.blocks[0].attn.qkv.weight.register_hook(lambda gradient: gradient * 1.01)


def no_first_merge(model: VisionLanguageModel) -> None:
    model.visual_encoder.blocks[0].merge_patches.order = "sorted"


@pytest.mark.parametrize(
    ("change", "seen"),
    [(nudge, {"tokens", "gradients"}), (wrong_gradient, {"gradients"}), (no_first_merge, {"cells elsewhere"})],
)
def test_a_device_that_encodes_otherwise_is_seen(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[VisionLanguageModel], None], seen: set[str]
) -> None:
    first_model_changed(monkeypatch, parity, change)
    assert broken(parity.encoder(CPU, TINY, "divided", "geometry")) >= seen


def test_a_device_that_reads_otherwise_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    first_model_changed(monkeypatch, parity, nudge)
    finding = parity.text(CPU, TINY)
    assert broken(finding) == {reading.what for reading in finding.readings}
    first_model_changed(monkeypatch, parity, wrong_gradient)
    assert broken(parity.text(CPU, TINY)) == {"gradients"}


def test_a_device_that_trains_otherwise_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert broken(training.as_on_a_cpu(CPU, TINY)) == set()
    original, devices = training.PretrainingStep, itertools.count()

    def stops_learning(*arguments: Any) -> PretrainingStep:
        step = original(*arguments)
        if next(devices) == 0:  # the losses of the first step stay the same
            step.optimizer.step = lambda *_: None  # type: ignore[method-assign]
        return step

    monkeypatch.setattr(training, "PretrainingStep", stops_learning)
    assert broken(training.as_on_a_cpu(CPU, TINY)) == {"vtc", "vtm", "cap"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_length_with_gradients_that_are_not_finite_is_named(monkeypatch: pytest.MonkeyPatch, precision: Any) -> None:
    original = attention_module._attend

    def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        context = original(query, key, value, bias)
        if query.shape[1] == 7 and context.requires_grad:
            context.register_hook(lambda gradient: gradient * torch.nan)
        return context

    monkeypatch.setattr(attention_module, "_attend", attend)
    finding = attention.with_bias(CPU, TINY, precision)
    assert broken(finding) == {"lengths not finite"}
    assert finding.readings[0].value == len(attention.GROUPS)
    assert finding.note == "not finite at 7 x 1, 7 x 3 (tokens x groups)"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_bias_that_is_forgotten_is_seen(monkeypatch: pytest.MonkeyPatch, precision: Any) -> None:
    original = attention_module._attend
    monkeypatch.setattr(attention_module, "_attend", lambda query, key, value, bias: original(query, key, value, None))
    assert broken(attention.with_bias(CPU, TINY, precision)) == {"outputs", "gradients"}


def test_a_format_that_computes_otherwise_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    original = F.scaled_dot_product_attention

    def doubled(query: Tensor, *rest: Tensor, **settings: Any) -> Tensor:
        attended = original(query, *rest, **settings)
        return attended * 2 if query.dtype == torch.bfloat16 else attended

    assert broken(formats.near_float32(CPU, TINY, "bf16")) == set()
    monkeypatch.setattr(F, "scaled_dot_product_attention", doubled)
    assert broken(formats.near_float32(CPU, TINY, "bf16")) == {"class token", "tokens"}


@pytest.mark.parametrize(
    ("factor_tokens", "factor_size", "seen"),
    [(torch.nan, 1.0, "gradients not finite, geometry"), (1.0, 0.5, "cells lost")],
)
def test_a_format_that_merges_otherwise_is_seen(
    monkeypatch: pytest.MonkeyPatch, factor_tokens: float, factor_size: float, seen: str
) -> None:
    original = blocks.merge

    def merged(tokens: Tensor, size: Tensor, plan: MergePlan) -> tuple[Tensor, Tensor]:
        tokens, size = original(tokens, size, plan)
        lower = torch.is_autocast_enabled("cpu")
        return (tokens * factor_tokens, size * factor_size) if lower else (tokens, size)

    monkeypatch.setattr(blocks, "merge", merged)
    assert broken(formats.near_float32(CPU, TINY, "bf16")) == {seen}


def test_steps_that_overflow_or_do_not_learn_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PretrainingStep, "taken", lambda self: 11)
    assert broken(formats.steps(CPU, TINY, "bf16")) == {"steps taken"}
    monkeypatch.undo()
    original = formats.PretrainingStep

    def without_rate(*arguments: Any) -> PretrainingStep:
        step = original(*arguments)
        step.optimizer.param_groups[0]["lr"] = step.optimizer.param_groups[1]["lr"] = 0.0
        return step

    monkeypatch.setattr(formats, "PretrainingStep", without_rate)
    assert "last over first loss" in broken(formats.steps(CPU, TINY, "bf16"))


@pytest.mark.parametrize(
    ("waiting", "named"),
    [
        (lambda self, video, text, index: float(video.sum()), "_local_scalar_dense"),
        (lambda self, video, text, index: video.nonzero(), "nonzero"),
        (lambda self, video, text, index: video[index >= 0], "index of a mask"),
    ],
)
def test_what_waits_for_the_device_is_named(
    monkeypatch: pytest.MonkeyPatch, waiting: Callable[..., Any], named: str
) -> None:
    monkeypatch.setattr(FeatureQueue, "push", waiting)
    finding = training.without_waiting(CPU, TINY)
    assert (finding.readings[0].value, finding.note) == (1, named)


def test_the_loop_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.gpu.checks import training_loop

    assert broken(training_loop.without_waiting(CPU, TINY)) == set()
    monkeypatch.setattr("engine.loop.lr_at", lambda *_: float(torch.ones(()).item()))
    assert broken(training_loop.without_waiting(CPU, TINY)) == {"operations waited for"}


def test_steps_that_differ_are_seen_and_the_setting_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert broken(training.the_same_twice(CPU, TINY)) == set()
    calls = itertools.count()

    def noise(*numbers: int) -> Tensor:
        return torch.rand(2, TINY.batch, TINY.batch, generator=torch.Generator().manual_seed(next(calls)))

    monkeypatch.setattr("tasks.objectives.momentum.selection_noise", noise)
    assert broken(training.the_same_twice(CPU, TINY)) == {"losses that differ", "weights that differ"}
    monkeypatch.setattr("tasks.objectives.momentum.selection_noise", lambda *_: {}["no noise"])
    with pytest.raises(KeyError):
        training.the_same_twice(CPU, TINY)
    assert not torch.are_deterministic_algorithms_enabled()


def test_recomputation_that_differs_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert broken(training.checkpointing(CPU, TINY, "recompute")) == set()
    original = video_encoder.checkpoint

    def dropped(block: Any, cls: Tensor, tokens: Tensor, *rest: Any, **settings: Any) -> Any:
        return original(block, cls, tokens * 1.01, *rest, **settings)

    monkeypatch.setattr(video_encoder, "checkpoint", dropped)
    assert {"tokens", "gradients"} <= broken(training.checkpointing(CPU, TINY, "recompute"))


def test_the_step_whose_memory_is_measured_runs() -> None:
    finding = training.memory(CPU, TINY, frames=8, batch=3, leaving={"frames_per_block": 1, "patches_per_block": 3})
    assert broken(finding) == set() and finding.note == "8 frames, batch 3, fp32"


@pytest.mark.soak
def test_compiled_is_compared_with_eager_for_each_size_and_the_limit_of_graphs_counts() -> None:
    one_block = replace(TINY, model=replace(TINY.model, depth=1))
    finding = compiled.against_eager(CPU, one_block, shapes=2, backend="aot_eager")
    assert broken(finding) == set() and finding.note == "2 sizes"
    # A monkeypatch deletes what it set in an object of its own attributes, and the limit would be gone for later tests.
    with torch._dynamo.config.patch(recompile_limit=1), pytest.raises(Exception, match="fullgraph") as error:
        compiled.against_eager(CPU, one_block, shapes=2, backend="aot_eager")
    assert type(error.value).__name__ == "FailOnRecompileLimitHit"


def gathered() -> list[set[str]]:
    """What the check sees in this process: as it is, of a gather without the others' gradients, of another order."""
    original = collectives.all_gather_rows_with_grad
    seen = []
    for gather in (
        original,
        lambda own: all_gather_rows(own) + _added(own),
        lambda own: original(own).flip(0),
    ):
        collectives.all_gather_rows_with_grad = gather
        seen.append({name for name, value in collectives.differences(CPU).items() if value > 1e-6})
    return seen


def _added(own: Tensor) -> Tensor:
    """Zero, with a gradient for the rows of this process."""
    own_rows = F.pad(own - own.detach(), (0, 0, collectives.ROWS * collectives.rank(), 0))
    return F.pad(own_rows, (0, 0, 0, collectives.world_size() * collectives.ROWS - len(own_rows)))


def test_a_gather_that_is_wrong_is_seen_by_all_processes() -> None:
    # The gradient of a sum of squares is the same in any order.
    assert run_ranks(2, gathered) == 2 * [[set(), {"their gradient"}, {"gathered"}]]


def test_processes_that_fail_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "OF_CPU", -1)
    with pytest.raises(RuntimeError, match=r"^status \d+: "):
        collectives.over_processes(CPU, TINY)


def test_formats_that_a_device_lacks_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotRun, match="needs a GPU"):
        formats.steps(CPU, TINY, "fp16")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    formats.require(torch.device("cuda", 0), "fp16")
    with pytest.raises(CannotRun, match="sm_80"):
        formats.require(torch.device("cuda", 0), "bf16")


def test_differences_do_not_pass_over_what_is_no_number() -> None:
    one, other = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])
    nan = torch.tensor([torch.nan, 4.0])
    assert difference(one, other) == 0.5 and difference(one, other, least_scale=8.0) == 0.25
    assert distance(one, other) == pytest.approx(2 / 17**0.5)
    assert gradient_difference([one, None], [other, None]) == 0.5
    assert gradient_difference([one, None], [other, one]) == float("inf")
    # A gradient that is rounding alone is held against the largest.
    assert gradient_difference([other, other * 1e-9], [other, -other * 1e-9]) == pytest.approx(2e-7)
    for value in (difference(nan, other), gradient_difference([one, nan], [one, other]), worst([0.0, float("nan")])):
        assert value != value
    assert not_finite([one, None, nan, one / 0]) == 2
