"""The video encoder for inference: ours, the released code's way, transformers' TimeSformer, and the machine's limit.

On a CPU one video at a time; on a GPU as many as it takes to fill it, and compiled too.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.growth import Point, measure_points
from benchmarks.limit import MachineLimit, Products, record
from benchmarks.measure import Case, ChildError, Row, Variant, take_turns
from benchmarks.naive_encoder import NaiveEncoder, has_reference
from benchmarks.settings import Settings, sections
from configs.load import from_dict, to_dict
from configs.schema import AggregationConfig, TestaConfig, VideoConfig
from engine.host_memory import keep_freed_memory
from models.testa.cost import count
from models.testa.video_encoder import VideoEncoder

MODULE = "benchmarks.encoder"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FIRST_BATCH, LARGEST_BATCH, LEAST_GAIN = 8, 1024, 1.03
"""A GPU is filled where twice the batch gives less than this gain in videos a second."""
REFERENCE = " (limit of the reference's products)"


def cases(settings: Settings) -> list[Case]:
    """Without aggregation and with the configured one, in float32 and bfloat16, against both limits."""
    model, video, configured = sections(settings)
    aggregations = [AggregationConfig()] + ([configured] if configured.reducer != "none" else [])
    found = []
    for dtype in DTYPES:
        batch = filling_batch(settings, dtype) if settings.device == "cuda" else 1
        for aggregation in aggregations:
            found += _cases_of(settings, model, video, aggregation, dtype, batch)
    return found


def _cases_of(
    settings: Settings, model: TestaConfig, video: VideoConfig, aggregation: AggregationConfig, dtype: str, batch: int
) -> list[Case]:
    work = {"aggregation": to_dict(aggregation), "dtype": dtype, "batch": batch, "frames": video.num_frames}
    name = f"encoder {dtype}, {video.num_frames} frames, batch {batch}, {described(aggregation)}"
    ours, limit = Variant(f"{MODULE}:ours", work), Variant(f"{MODULE}:limit", work)
    naive = Variant(f"{MODULE}:naive", work) if has_reference(model, aggregation) else None
    comparable = naive is not None and aggregation.reducer == "none"
    peer = Variant(f"{MODULE}:peer", work) if comparable else None
    found = [Case(name, ours, naive, peer, limit)]
    if naive is not None:
        found.append(Case(f"{name}{REFERENCE}", ours, limit=Variant(f"{MODULE}:limit", {**work, "reference": True})))
    if settings.device == "cuda":
        compiled = Variant(f"{MODULE}:ours", {**work, "compiled": True})
        found.append(Case(f"{name}, compiled", compiled, naive, peer, limit))
    return found


def described(aggregation: AggregationConfig) -> str:
    """The aggregation in a few words."""
    if aggregation.reducer == "none":
        return "no aggregation"
    if aggregation.keep is not None:
        inside = "" if aggregation.inside == "none" else f", then {aggregation.inside} R {aggregation.tokens_per_block}"
        return f"{aggregation.reducer} keep {aggregation.keep}{inside}"
    if aggregation.reducer == "tome":
        return f"tome R {aggregation.tokens_per_block}"
    return f"{aggregation.reducer} R_T {aggregation.frames_per_block} R_S {aggregation.patches_per_block}"


def filling_batch(settings: Settings, dtype: str) -> int:
    """The batch, doubled as long as that pays and fits, at which the encoder without aggregation fills the GPU.

    Both ours and the naive one have to hold it where there is one, so that they can be compared.
    """
    model, video, _ = sections(settings)
    aggregation = AggregationConfig()
    names = ["ours", *(["naive"] if has_reference(model, aggregation) else [])]
    batch, rate = 0, 0.0
    while batch < LARGEST_BATCH:
        doubled = 2 * batch or FIRST_BATCH
        work = {"aggregation": to_dict(aggregation), "dtype": dtype, "batch": doubled, "frames": video.num_frames}
        try:
            calls = take_turns([Variant(f"{MODULE}:{name}", work) for name in names], settings)
        except ChildError as error:
            if batch == 0 or "OutOfMemoryError" not in str(error):
                raise
            return batch

        new_rate = doubled / min(call.seconds for call in calls[0])
        if new_rate < LEAST_GAIN * rate:
            return batch

        batch, rate = doubled, new_rate

    return batch


def ours(
    settings: Settings, aggregation: dict[str, Any], dtype: str, batch: int, frames: int, compiled: bool = False
) -> Callable[[], None]:
    """Our encoder, prepared for inference; `compiled` by torch.compile as one graph."""
    model, video, reducer = _configured(settings, aggregation)
    torch.manual_seed(0)
    encoder = VideoEncoder(model, video, reducer).eval().to(settings.device, DTYPES[dtype]).fold_for_inference()
    if compiled:
        encoder.compile(fullgraph=True, dynamic=False)
    keep_freed_memory()  # not before: what building has freed would hide part of the peak
    return _forward(encoder, _pixels(settings, video, dtype, batch, frames))


def naive(settings: Settings, aggregation: dict[str, Any], dtype: str, batch: int, frames: int) -> Callable[[], None]:
    """The released code's way, with our weights."""
    model, video, reducer = _configured(settings, aggregation)
    encoder = NaiveEncoder(model, video, reducer).eval()
    torch.manual_seed(0)
    encoder.load_state_dict(VideoEncoder(model, video, reducer).state_dict())
    return _forward(
        encoder.to(settings.device, DTYPES[dtype]),
        _pixels(settings, video, dtype, batch, frames),
    )


def peer(settings: Settings, aggregation: dict[str, Any], dtype: str, batch: int, frames: int) -> Callable[[], None]:
    """transformers' TimeSformer of the same sizes; it has no aggregation."""
    from transformers import TimesformerConfig, TimesformerModel

    model, video, reducer = _configured(settings, aggregation)
    assert reducer.reducer == "none" and model.attention == "divided"
    config = TimesformerConfig(
        image_size=video.image_size,
        patch_size=model.patch_size,
        num_frames=frames,
        hidden_size=model.width,
        num_hidden_layers=model.depth,
        num_attention_heads=model.heads,
        intermediate_size=int(model.width * model.mlp_ratio),
        attention_type="divided_space_time",
    )
    torch.manual_seed(0)
    encoder = TimesformerModel(config).eval().to(settings.device, DTYPES[dtype])
    return _forward(encoder, _pixels(settings, video, dtype, batch, frames))


def limit(
    settings: Settings, aggregation: dict[str, Any], dtype: str, batch: int, frames: int, reference: bool = False
) -> MachineLimit:
    """What the machine could do of the products that we execute, or of the reference's."""
    keep_freed_memory()
    model, video, reducer = _configured(settings, aggregation)
    products = reference_products if reference else executed_products
    return MachineLimit(products(model, video, reducer, batch, frames), torch.device(settings.device), DTYPES[dtype])


def executed_products(
    model: TestaConfig, video: VideoConfig, aggregation: AggregationConfig, batch: int = 1, frames: int | None = None
) -> Products:
    """The matrix products of our encoder for inference."""
    with torch.device("meta"):
        encoder = VideoEncoder(model, video, aggregation).eval().fold_for_inference()
        return record(encoder, _empty_pixels(video, batch, frames or video.num_frames))


def reference_products(
    model: TestaConfig, video: VideoConfig, aggregation: AggregationConfig, batch: int = 1, frames: int | None = None
) -> Products:
    """The matrix products as the released code computes them: those the paper counts."""
    with torch.device("meta"):
        encoder = NaiveEncoder(model, video, aggregation).eval()
        return record(encoder, _empty_pixels(video, batch, frames or video.num_frames))


def notes(settings: Settings, rows: Sequence[Row]) -> list[str]:
    """For every pair of rows with and without aggregation: its speed-up over what it saves of multiply-accumulates."""
    model, video, aggregation = sections(settings)
    if aggregation.reducer == "none":
        return []

    none, merged = described(AggregationConfig()), described(aggregation)
    saved = {
        "the paper's GMACs": [count(model, video, reducer).gmacs for reducer in (AggregationConfig(), aggregation)],
        "executed products' GMACs": [
            executed_products(model, video, reducer).macs / 1e9 for reducer in (AggregationConfig(), aggregation)
        ],
    }
    seconds = {row.name: row.ours_s for row in rows if REFERENCE not in row.name}
    lines = []
    for name, without in seconds.items():
        with_it = seconds.get(name.replace(none, merged))
        if none in name and with_it is not None:
            speed_up = without / with_it
            for what, (all_of_it, left) in saved.items():
                lines.append(
                    f"{name.replace(none, merged)}: {speed_up:.3f} times faster than without; {what} fall "
                    f"{all_of_it / left:.3f} times ({all_of_it:.1f} to {left:.1f}): "
                    f"realised {speed_up / (all_of_it / left):.3f} of it"
                )

    return lines


def frames_growth(settings: Settings, frames: Sequence[int], path: Path) -> list[dict[str, Any]]:
    """Rows {aggregation, frames, seconds, peak_bytes} of one float32 video of more and more frames, also in `path`.

    The schedule stays the one for the configured number of frames.
    """
    _, _, configured = sections(settings)
    points = []
    for aggregation, num_frames in itertools.product([AggregationConfig(), configured], frames):
        work = {"aggregation": to_dict(aggregation), "dtype": "fp32", "batch": 1, "frames": num_frames}
        at = {"aggregation": described(aggregation), "frames": num_frames}
        points.append(Point(at, Variant(f"{MODULE}:ours", work)))
    return measure_points(points, settings, path)


def schedule_grid(settings: Settings, path: Path) -> list[dict[str, Any]]:
    """Rows {frames_per_block, patches_per_block, gmacs, seconds, peak_bytes} of one float32 video, also in `path`.

    About four numbers of each, from none to nearly the most that the model can lose.
    """
    model, video, _ = sections(settings)
    points = []
    for of_frames, of_patches in itertools.product(_amounts(model, video, "frames"), _amounts(model, video, "patches")):
        aggregation = AggregationConfig(reducer="geometry", frames_per_block=of_frames, patches_per_block=of_patches)
        at = {
            "frames_per_block": of_frames,
            "patches_per_block": of_patches,
            "gmacs": count(model, video, aggregation).gmacs,
        }
        work = {"aggregation": to_dict(aggregation), "dtype": "fp32", "batch": 1, "frames": video.num_frames}
        points.append(Point(at, Variant(f"{MODULE}:ours", work)))
    return measure_points(points, settings, path)


def _amounts(model: TestaConfig, video: VideoConfig, axis: Literal["frames", "patches"]) -> range:
    def merging(amount: int) -> AggregationConfig:
        leaving: dict[str, Any] = {f"{axis}_per_block": amount}
        return AggregationConfig(reducer="geometry", **leaving)

    most = 0
    while _holds(model, video, merging(most + 1)):
        most += 1
    return range(0, most + 1, max(1, (most + 1) // 4))


def _holds(model: TestaConfig, video: VideoConfig, aggregation: AggregationConfig) -> bool:
    try:
        model.check(video, aggregation)
    except ValueError:
        return False
    return True


def _configured(settings: Settings, aggregation: dict[str, Any]) -> tuple[TestaConfig, VideoConfig, AggregationConfig]:
    model, video, _ = sections(settings)
    return model, video, from_dict(AggregationConfig, aggregation, "aggregation")


def _empty_pixels(video: VideoConfig, batch: int, frames: int) -> Tensor:
    return torch.empty(batch, frames, 3, video.image_size, video.image_size)


def _pixels(settings: Settings, video: VideoConfig, dtype: str, batch: int, frames: int) -> Tensor:
    pixels = torch.empty(
        batch, frames, 3, video.image_size, video.image_size, device=settings.device, dtype=DTYPES[dtype]
    )
    return pixels.normal_(generator=torch.Generator(settings.device).manual_seed(0))


def _forward(encoder: nn.Module, pixels: Tensor) -> Callable[[], None]:
    def forward() -> None:
        with torch.no_grad():
            encoder(pixels)

    return forward
