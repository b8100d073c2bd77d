"""Steps of pre-training: as on a CPU, without waiting for the device, the same twice, and within the memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from configs.aggregation import AggregationConfig
from engine.precision import resolve_precision
from tests.gpu.checks.models import LOSSES, Checkpointing, PretrainingStep, aggregation, build_model, clips
from tests.gpu.checks.outcome import CannotRun, Finding, Reading, worst
from tests.gpu.checks.parity import CPU, compare, encode
from tests.gpu.checks.sizes import Size

STEPS, LOSS = 3, 1e-3
WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique")
"""Operations whose result, or the size of it, the host has to wait for."""
BY_INDEX = ("index", "index_put", "index_put_")
"""The same where they are given a mask."""
GIGABYTE = 1e9
ENOUGH_GIGABYTES = 40.0


def as_on_a_cpu(device: torch.device, size: Size) -> Finding:
    """The losses of some steps in float32, optimizer, twin and queue between them, against those on a CPU."""
    found, expected = (_losses(PretrainingStep(size, where, "fp32")) for where in (device, CPU))
    readings = []
    for name, own, other in zip(LOSSES, found.T, expected.T, strict=True):
        apart = (own - other).abs() / other.abs()
        readings.append(Reading(name, worst(apart.tolist()), LOSS))
    return Finding(readings, f"{STEPS} steps")


def without_waiting(device: torch.device, size: Size) -> Finding:
    """One step, after one to warm up, in which nothing makes the host wait for the device."""
    step = PretrainingStep(size, device, resolve_precision("auto", device))
    step()
    with waits(device) as found:
        step()
    return Finding([Reading("operations waited for", len(found), 0)], ", ".join(sorted(set(found))))


def the_same_twice(device: torch.device, size: Size) -> Finding:
    """Steps from the same seed, with torch's deterministic algorithms: equal losses and weights, to the bit."""
    precision = resolve_precision("auto", device)
    runs = []
    with _deterministic():
        for _ in range(2):
            step = PretrainingStep(size, device, precision)
            runs.append((_losses(step), [parameter.detach().cpu() for parameter in step.model.parameters()]))
    (losses, weights), (losses_again, weights_again) = runs
    readings = [
        Reading("losses that differ", int((losses != losses_again).sum()), 0),
        Reading("weights that differ", sum(map(_differ, weights, weights_again)), 0),
    ]
    return Finding(readings, f"{STEPS} steps in {precision}")


def checkpointing(device: torch.device, size: Size, how: Checkpointing) -> Finding:
    """Recomputed or offloaded activations: the same output and gradients with less memory (told on a GPU alone)."""
    merging, video = aggregation(size, "geometry"), clips(size, device)
    sides, peaks = [], []
    for kind in ("none", how):
        encoder = build_model(size, device, merging=merging, checkpointing=kind).visual_encoder.train()
        encode(encoder, encoder, video)  # makes the gradients, which both sides then have in memory
        with _peak(device) as peak:
            sides.append(encode(encoder, encoder, video))
        peaks.append(peak[0])
        sides[-1] = (sides[-1][0], [None if part is None else part.cpu() for part in sides[-1][1]])
        del encoder
    readings = compare(sides[1], sides[0])
    if device.type == "cuda":
        readings.append(Reading("share of the memory", peaks[1] / peaks[0], 0.9))
    return Finding(readings)


def memory(device: torch.device, size: Size, frames: int, batch: int, leaving: dict[str, Any]) -> Finding:
    """The step of the whole model with its twin, recomputed activations and aggregation; memory on a GPU alone."""
    if device.type == "cuda":
        available = torch.cuda.get_device_properties(device).total_memory / GIGABYTE
        if available < ENOUGH_GIGABYTES:
            raise CannotRun(f"needs a GPU of {ENOUGH_GIGABYTES:g} GB; this one has {available:.0f}")
    whole = replace(size, model=size.whole, video=replace(size.video, num_frames=frames))
    merging = AggregationConfig(reducer="geometry", **leaving)
    precision = resolve_precision("auto", device)
    with _peak(device) as peak:
        step = PretrainingStep(whole, device, precision, "recompute", batch, queue_size=57600, merging=merging)
        step()
        losses = step()
    readings = [Reading("losses not finite", int((~losses.isfinite()).sum()), 0)]
    if device.type == "cuda":
        readings.append(Reading("GB", peak[0] / GIGABYTE, ENOUGH_GIGABYTES))
    return Finding(readings, f"{frames} frames, batch {batch}, {precision}")


def _differ(own: torch.Tensor, other: torch.Tensor) -> bool:
    return not torch.equal(own, other)


def _losses(step: PretrainingStep) -> torch.Tensor:
    return torch.stack([step() for _ in range(STEPS)]).cpu()


class _Waits(TorchDispatchMode):
    """Notes each operation that the host would wait for, on whatever device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        chosen = args[1] if name in BY_INDEX else []
        by_mask = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in chosen)
        if name in WAITS or by_mask:
            self.found.append(f"{name} of a mask" if by_mask else name)
        return func(*args, **(kwargs or {}))


@contextmanager
def waits(device: torch.device) -> Iterator[list[str]]:
    """A list that gets what the host waits for; on a GPU, torch moreover raises where it would wait.

    That includes copies to the device of what is not pinned, unless they are told not to block.
    """
    noted, on_gpu = _Waits(), device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.set_sync_debug_mode("error")
    try:
        with noted:
            yield noted.found
    finally:
        if on_gpu:
            torch.cuda.set_sync_debug_mode("default")


@contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def _peak(device: torch.device) -> Iterator[list[float]]:
    """A list that afterwards has the most bytes allocated on top of what there was before; 0 on a CPU."""
    peak, on_gpu = [0.0], device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        peak[0] = -float(torch.cuda.memory_allocated(device))
    yield peak
    if on_gpu:
        peak[0] += torch.cuda.max_memory_allocated(device)
