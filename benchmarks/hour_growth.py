"""How the encoder's time and memory grow from 32 frames to an hour, and where the reference's way runs out of memory.

One bfloat16 video of made pixels, through the model of `benchmarks.hour`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import encoder, hour
from benchmarks.growth import Point, measure_points
from benchmarks.measure import Variant
from benchmarks.settings import Settings, sections
from configs.load import from_dict, to_dict
from configs.schema import AggregationConfig
from engine.host_memory import keep_freed_memory
from models.testa.video_encoder import VideoEncoder

FRAMES = (32, 96, 256, 512, 1024, 2048, 3600)
REFERENCE = "the reference's way"
REFERENCE_FRAMES = (32, 96, 256, 512, 1024, 1280)
"""Up to some 18 GiB. What more frames need follows from these: fewer say too little of the attention maps."""
MACHINE_BYTES = 24 * 2**30


def growth(
    settings: Settings, path: Path, frames: Sequence[int] = FRAMES, reference_frames: Sequence[int] = REFERENCE_FRAMES
) -> list[dict[str, Any]]:
    """Rows {aggregation, frames, seconds, peak_bytes} of more and more frames, also in `path`.

    Frames merge in proportion, a sixteenth in each block, and patches as configured.
    """
    settings = hour.of_an_hour(settings)
    patches_per_block = sections(settings)[2].patches_per_block
    points = []
    for merges in (True, False):
        for num_frames in frames:
            aggregation = AggregationConfig()
            if merges:
                aggregation = AggregationConfig(
                    reducer="geometry", frames_per_block=num_frames // 16, patches_per_block=patches_per_block
                )
            work = {"aggregation": to_dict(aggregation), "num_frames": num_frames}
            at = {"aggregation": "ours, merging" if merges else "ours, no aggregation", "frames": num_frames}
            points.append(Point(at, Variant(f"{__name__}:encode", work)))

    for num_frames in reference_frames:
        work = {"aggregation": to_dict(AggregationConfig()), "dtype": "bf16", "batch": 1, "frames": num_frames}
        at = {"aggregation": REFERENCE, "frames": num_frames}
        points.append(Point(at, Variant(f"{encoder.MODULE}:naive", work)))
    return measure_points(points, settings, path, warm=False)


def encode(settings: Settings, aggregation: dict[str, Any], num_frames: int) -> Callable[[], None]:
    """Encode made pixels in bfloat16."""
    model, video, _ = sections(settings)
    video = replace(video, num_frames=num_frames)
    reducer = from_dict(AggregationConfig, aggregation, "aggregation")
    torch.manual_seed(0)
    built = VideoEncoder(model, video, reducer).eval().to(settings.device, torch.bfloat16).fold_for_inference()
    shape = (1, num_frames, 3, video.image_size, video.image_size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=settings.device)
    keep_freed_memory()

    def work() -> None:
        with torch.no_grad():
            built(built.normalised(pixels))

    return work


def forecast(rows: Sequence[dict[str, Any]], limit_bytes: int = MACHINE_BYTES) -> tuple[list[int], list[float]] | None:
    """Bytes that the reference's way needs for more frames than were measured, up to `limit_bytes`; None: not known.

    Its tokens grow with the frames and its attention maps with their square: a parabola through zero, fitted to the
    three largest measurements. The last of the frames returned are the first that do not fit.
    """
    measured = sorted(
        (row["frames"], row["peak_bytes"]) for row in rows if row["aggregation"] == REFERENCE and row["peak_bytes"]
    )[-3:]
    if len(measured) < 2:
        return None

    frames, peaks = np.array(measured, dtype=np.float64).T
    per_frame, per_square = np.linalg.lstsq(np.stack([frames, frames**2], axis=1), peaks, rcond=None)[0]
    if per_square <= 0:
        return None
    end = int((-per_frame + (per_frame**2 + 4 * per_square * limit_bytes) ** 0.5) / (2 * per_square)) + 1
    if end <= frames[-1]:
        return None
    at = np.linspace(frames[-1], end, 20).round()
    return at.astype(int).tolist(), (per_frame * at + per_square * at**2).tolist()
