"""The checks of UMT, TVTSv2 and STOA-VLP see what they are there for: with the code broken, a reading is off."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.systems import SYSTEMS as ALL_SYSTEMS
from tests.gpu.checks import systems
from tests.gpu.checks.sizes import SIZES
from tests.gpu.checks.systems_settings import SETTINGS, SystemSettings
from tests.gpu.checks.table import CHECKS, SYSTEMS
from tests.gpu.test_broken_code import broken

CPU, TINY = torch.device("cpu"), SIZES["tiny"]


def test_every_system_has_the_same_kinds_of_checks() -> None:
    assert {"testa", *SYSTEMS} == ALL_SYSTEMS.keys() and SETTINGS.keys() == set(SYSTEMS)
    for system in SYSTEMS:
        for kind in ("as on a CPU", "bf16", "fp16", "fused", "memory as planned"):
            assert f"{system}/{kind}" in CHECKS
        assert (f"compile/{system}" in CHECKS) == (system != "stoa")


@torch.no_grad()
def nudge(model: torch.nn.Module) -> None:
    for parameter in model.parameters():
        parameter.add_(0.03 * parameter.abs().mean())


def first_model_changed(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Of the models that a check compares, the one on the device is made another one."""
    original, count = systems.build, itertools.count()

    def build(*arguments: Any, **settings: Any) -> Any:
        model = original(*arguments, **settings)
        if next(count) == 0:
            change(model)
        return model

    monkeypatch.setattr(systems, "build", build)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_device_that_computes_otherwise_is_seen(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    first_model_changed(monkeypatch, nudge)
    assert broken(systems.as_on_a_cpu(CPU, TINY, system)) >= {"video embedding", "text embedding", "gradients"}


@pytest.mark.parametrize("system", [system for system in SYSTEMS if SETTINGS[system].merges])
def test_a_device_that_merges_otherwise_is_seen(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    original, count = systems._origins, itertools.count()

    def origins(*arguments: Any) -> Tensor:
        found = original(*arguments)
        return found.flip(-1) if next(count) == 0 else found

    monkeypatch.setattr(systems, "_origins", origins)
    assert broken(systems.as_on_a_cpu(CPU, TINY, system)) == {"cells elsewhere"}


def test_a_kernel_that_is_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that leaves out the scale of the scores, in the fused pass alone."""
    original, model = F.scaled_dot_product_attention, "tvts"

    def attend(query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Tensor:
        is_plain = not torch.backends.cuda.flash_sdp_enabled()
        return original(query, key, value, **settings) if is_plain else original(1.5 * query, key, value, **settings)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    assert broken(systems.fused(CPU, TINY, model)) == {"video embedding", "text embedding", "gradients"}


def test_weights_that_overflow_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflows(model: torch.nn.Module) -> None:
        trained = next(parameter for parameter in model.vision_encoder.parameters() if parameter.requires_grad)
        trained.register_hook(lambda gradient: gradient / 0)

    monkeypatch.setitem(SETTINGS, "umt", with_preparation("umt", overflows))
    assert broken(systems.near_float32(CPU, TINY, "umt", "bf16")) == {"gradients not finite"}


def with_preparation(system: str, prepare: Any) -> SystemSettings:
    return SystemSettings(**{**SETTINGS[system].__dict__, "prepare": prepare})


@pytest.mark.soak
@pytest.mark.parametrize("system", ["umt", "tvts"])
def test_compiled_towers_are_held_against_eager_ones(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    """Traced, without building kernels."""
    assert broken(systems.compiled(CPU, TINY, system, backend="aot_eager")) == set()
    first_model_changed(monkeypatch, nudge)
    assert broken(systems.compiled(CPU, TINY, system, backend="aot_eager")) >= {"video embedding", "gradients"}
