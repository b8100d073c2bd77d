"""What `auto` means on a CPU, and which GPUs a build of torch can drive."""

import pytest
import torch

from engine.precision import autocast, is_supported, resolve_precision

CPU = torch.device("cpu")


def test_auto_is_fp32_on_a_cpu_and_fp16_is_refused() -> None:
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"
    with pytest.raises(ValueError, match=r"train\.precision: fp16 needs a GPU"):
        resolve_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_auto_follows_the_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", torch.device("cuda", 0)) == expected


def test_autocast_computes_products_in_the_format() -> None:
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    with autocast(CPU, "fp32"):
        assert torch.equal(matrix @ matrix, matrix.mm(matrix))
    with autocast(CPU, "bf16"):
        product = matrix @ matrix
    assert torch.equal(product, matrix.bfloat16() @ matrix.bfloat16())


@pytest.mark.parametrize(
    ("capability", "architectures", "expected"),
    [
        ((7, 0), ["sm_75", "sm_80", "sm_90", "compute_120"], False),  # a V100 under the newest wheels
        ((7, 0), ["sm_70", "sm_75"], True),
        ((8, 6), ["sm_80"], True),  # later of the same generation
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80", "sm_86"], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100f"], True),
        ((10, 3), ["sm_100a"], False),
        ((12, 1), ["sm_75", "compute_120"], True),  # compiled for it when first used
        ((9, 0), ["compute_120"], False),
    ],
)
def test_is_supported(capability: tuple[int, int], architectures: list[str], expected: bool) -> None:
    assert is_supported(capability, architectures) == expected
