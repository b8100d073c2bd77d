"""The floating-point format of the forward passes, and the devices that support it."""

import re
from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(setting: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """The format of a setting. `auto` is bf16 on GPUs from sm_80 on, fp16 on older ones and fp32 on a CPU.

    `ValueError` for fp16 on a CPU.
    """
    if setting == "auto":
        if device.type == "cpu":
            return "fp32"
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if setting == "fp16" and device.type == "cpu":
        raise ValueError("train.precision: fp16 needs a GPU; use fp32 or bf16 on a CPU")
    return setting


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """Compute in `precision` where torch considers it safe; fp32 changes nothing."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


def check_gpu_is_supported(device: torch.device) -> None:
    """`ValueError` if the installed torch has no kernels for this GPU; it names the file to install from."""
    if device.type == "cuda" and not is_supported(torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()):
        major, minor = torch.cuda.get_device_capability(device)
        raise ValueError(
            f"torch {torch.__version__} has no kernels for {torch.cuda.get_device_name(device)} (sm_{major}{minor}), "
            f"only for {', '.join(torch.cuda.get_arch_list())}; install the environment of environment.yml"
        )


def is_supported(capability: tuple[int, int], architectures: list[str]) -> bool:
    """Whether a GPU runs code for `architectures`, such as sm_80 (its own generation) or compute_90 (all later)."""
    for architecture in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture)
        if not match:
            continue
        kind, built, suffix = match[1], (int(match[2]), int(match[3])), match[4]
        if built == capability:
            return True
        if suffix == "a":  # runs on exactly that GPU
            continue

        same_generation = built[0] == capability[0] and built[1] <= capability[1]
        if same_generation or (kind == "compute" and not suffix and built <= capability):
            return True
    return False
