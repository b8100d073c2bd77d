"""The formats that a device computes in: which it is given, and that the lower ones are near float32 and train."""

import torch

from engine.precision import Precision, autocast, check_gpu_is_supported, resolve_precision
from tests.gpu.checks.models import LOSSES, PretrainingStep, aggregation, build_model, clips
from tests.gpu.checks.outcome import CannotRun, Finding, Reading, distance, not_finite
from tests.gpu.checks.sizes import Size

APART: dict[Precision, float] = {"fp32": 1e-4, "bf16": 0.05, "fp16": 0.01}
"""How far outputs may be from those in float32, relative to their norm."""
STEPS, LEAST_TAKEN = 12, 6
"""A scaler begins high and lowers its scale with every step that overflows."""


def require(device: torch.device, precision: Precision) -> None:
    """`CannotRun` where the device does not compute in this format itself."""
    if precision == "fp16" and device.type == "cpu":
        raise CannotRun("needs a GPU")
    if precision == "bf16" and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        raise CannotRun("needs a GPU from sm_80 on")


def supported(device: torch.device, size: Size) -> Finding:
    """Whether this torch has kernels for the device, and which format it is given."""
    check_gpu_is_supported(device)
    precision = resolve_precision("auto", device)
    if device.type == "cpu":
        return Finding([], f"CPU: {precision}")
    properties = torch.cuda.get_device_properties(device)
    return Finding([], f"{properties.name}, sm_{properties.major}{properties.minor}: {precision}")


def near_float32(device: torch.device, size: Size, precision: Precision) -> Finding:
    """The encoder under autocast: near float32 where nothing merges, and with merging no cell lost, nothing not finite.

    Which tokens merge may differ: another format chooses otherwise between tokens that are nearly as alike.
    """
    require(device, precision)
    video, readings, elsewhere = clips(size, device), [], 0
    for reducer in ("none", "geometry"):
        encoder = build_model(size, device, merging=aggregation(size, reducer)).visual_encoder.train()
        with torch.no_grad():
            expected = encoder(video, return_origins=True)
        with autocast(device, precision):
            found = encoder(video, return_origins=True)
        found.tokens.float().square().mean().backward()
        gradients = [parameter.grad for parameter in encoder.parameters()]
        readings.append(Reading(f"gradients not finite, {reducer}", not_finite(gradients), 0))
        if reducer == "none":
            readings.append(
                Reading("class token", distance(found.tokens[:, 0], expected.tokens[:, 0]), APART[precision])
            )
            readings.append(Reading("tokens", distance(found.tokens, expected.tokens), APART[precision]))
        else:
            lost = (found.size.sum(dim=1) - expected.size.sum(dim=1)).abs().max()
            readings.append(Reading("cells lost", float(lost), 0))
            elsewhere = int((found.origins != expected.origins).sum())
    return Finding(readings, f"{elsewhere} of {found.origins.numel()} cells elsewhere")


def steps(device: torch.device, size: Size, precision: Precision) -> Finding:
    """Steps of pre-training, in fp16 with a scaled loss: what they leave is finite and the losses fall."""
    require(device, precision)
    step = PretrainingStep(size, device, precision)
    losses = torch.stack([step() for _ in range(STEPS)]).cpu()
    return Finding(
        [
            Reading("steps taken", step.taken(), LEAST_TAKEN if precision == "fp16" else STEPS, ">="),
            Reading("losses not finite", int((~losses.isfinite()).sum()), 0),
            Reading("weights not finite", not_finite(list(step.model.parameters())), 0),
            Reading("last over first loss", float(losses[-1].sum() / losses[0].sum()), 0.95),
        ],
        " ".join(f"{name} {value:.3f}" for name, value in zip(LOSSES, losses[-1].tolist(), strict=True)),
    )
