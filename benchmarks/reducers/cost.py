"""How long encoding one video takes with each reducer, and how much memory: processes that take turns."""

import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.child import Work
from benchmarks.measure import Variant, peak_bytes, take_turns
from benchmarks.reducers.schedules import Matched
from benchmarks.settings import Settings
from configs.load import from_dict, to_dict
from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from engine.checkpoint_folder import write_json
from engine.host_memory import keep_freed_memory
from models.testa.video_encoder import VideoEncoder

VIDEOS = 8
"""In one batch: a single one of these small videos is over before the clock can tell."""
SETTINGS = Settings(config=None, overrides=(), device="cpu", threads=1, rounds=15)


def measure(reducers: dict[str, Matched], path: Path, settings: Settings = SETTINGS) -> dict[str, dict[str, Any]]:
    """Seconds a video, and bytes of a batch of VIDEOS beside its pixels and the weights, by reducer; also in `path`."""
    calls = take_turns([variant_of(matched) for matched in reducers.values()], settings)

    measured: dict[str, dict[str, Any]] = {}
    for name, own in zip(reducers, calls, strict=True):
        seconds = statistics.median(call.seconds for call in own) / VIDEOS
        measured[name] = {"seconds": seconds, "peak_bytes": peak_bytes(own)}

    write_json(path, measured)
    return measured


def variant_of(matched: Matched) -> Variant:
    """The work that is measured for a reducer."""
    parts = {name: to_dict(getattr(matched, name)) for name in ("model", "video", "aggregation")}
    return Variant(f"{__name__}:forward", parts)


def forward(settings: Settings, model: dict[str, Any], video: dict[str, Any], aggregation: dict[str, Any]) -> Work:
    """An encoder with random weights, prepared for inference, and a batch of random pixels."""
    size = from_dict(VideoConfig, video, "video")
    torch.manual_seed(0)
    encoder = VideoEncoder(
        from_dict(TestaConfig, model, "model"), size, from_dict(AggregationConfig, aggregation, "aggregation")
    )
    encoder = encoder.eval().to(settings.device).fold_for_inference()
    pixels = torch.randn(VIDEOS, size.num_frames, 3, size.image_size, size.image_size, device=settings.device)
    keep_freed_memory()  # not before: what building has freed would hide part of the peak

    def encode() -> None:
        with torch.no_grad():
            encoder(pixels)

    return encode
