"""The compiled encoder against the eager one, for videos of several sizes, and with a bias of odd lengths."""

from dataclasses import replace
from typing import Literal

import torch

from tests.gpu.checks.models import Checkpointing, aggregation, build_model, clips
from tests.gpu.checks.outcome import Finding, Reading, worst
from tests.gpu.checks.parity import compare, encode
from tests.gpu.checks.sizes import Size

TOLERANCE = {"cells elsewhere": 0.0, "tokens": 1e-3, "gradients": 1e-2}
"""A compiler adds up in another order: that of the products is the same, that of norms and sums is not."""


def against_eager(
    device: torch.device,
    size: Size,
    shapes: int = 1,
    proportional: bool = False,
    checkpointing: Checkpointing = "none",
    backend: Literal["inductor", "aot_eager"] = "inductor",
) -> Finding:
    """Outputs and gradients for videos of `shapes` sizes, each one graph. Past torch's limit of graphs that fails."""
    torch.compiler.reset()
    merging = aggregation(size, "geometry", proportional_attention=proportional)
    encoder = build_model(size, device, merging=merging, checkpointing=checkpointing).visual_encoder.train()
    # Sizes as numbers, not as symbols: with those, tracing the schedule takes minutes.
    compiled = torch.compile(encoder, fullgraph=True, dynamic=False, backend=backend)
    readings: list[Reading] = []
    for shape in range(shapes):
        frames, batch = size.video.num_frames - shape % 2, size.batch + shape // 2
        video = clips(replace(size, batch=batch, video=replace(size.video, num_frames=frames)), device)
        readings += compare(encode(compiled, encoder, video), encode(encoder, encoder, video))
    values = {what: worst(reading.value for reading in readings if reading.what == what) for what in TOLERANCE}
    return Finding([Reading(what, value, TOLERANCE[what]) for what, value in values.items()], f"{shapes} sizes")
