"""The goals of speed, measured by the benchmark's own ways to do the work, each in a process of its own."""

import statistics

import torch

from benchmarks import encoder as encoder_benchmark, hour_growth, train_step
from benchmarks.measure import Variant, measure, peak_bytes, take_turns
from benchmarks.settings import Settings, sections
from configs.load import to_dict
from configs.schema import AggregationConfig
from models.testa.cost import count
from tests.gpu.checks.formats import require
from tests.gpu.checks.outcome import Finding, Reading
from tests.gpu.checks.sizes import Size

ROUNDS = 3
SECONDS_OF_AN_HOUR, GIB_OF_AN_HOUR, GIB = 1.5, 24, 2**30
OF_THE_LIMIT, OF_THE_SAVING, OF_THE_STEP, OF_ITS_MEMORY = 0.5, 0.9, 2.0, 2.0


def encoder(
    device: torch.device, size: Size, frames: int, batch: int, merging: tuple[str, ...] = (), compiled: bool = False
) -> Finding:
    """The encoder in bfloat16 over what the device multiplies at best, and what of aggregation's saving is realised.

    Args:
        batch: enough to fill the device.
        merging: overrides of the default aggregation.
        compiled: whether the encoder with aggregation is to be compiled too.
    """
    require(device, "bf16")
    settings = _settings(device, size, (f"video.num_frames={frames}", *merging))
    model, video, configured = sections(settings)
    variants: dict[str, Variant] = {}
    gmacs: dict[str, float] = {}
    for name, aggregation in {"no aggregation": AggregationConfig(), "aggregation": configured}.items():
        work = {"aggregation": to_dict(aggregation), "dtype": "bf16", "batch": batch, "frames": frames}
        variants[name] = Variant(f"{encoder_benchmark.MODULE}:ours", work)
        variants[f"limit, {name}"] = Variant(f"{encoder_benchmark.MODULE}:limit", work)
        gmacs[name] = count(model, video, aggregation).gmacs
    if compiled:
        variants["aggregation, compiled"] = Variant(f"{encoder_benchmark.MODULE}:ours", {**work, "compiled": True})
    turns = zip(variants, take_turns(list(variants.values()), settings), strict=True)
    seconds = {name: statistics.median(call.seconds for call in calls) for name, calls in turns}
    limits = {name: f"limit, {name.partition(',')[0]}" for name in variants if not name.startswith("limit")}
    readings = [
        Reading(f"over limit, {name}", seconds[limit] / seconds[name], OF_THE_LIMIT, ">=")
        for name, limit in limits.items()
    ]
    speed_up, saving = (cost["no aggregation"] / cost["aggregation"] for cost in (seconds, gmacs))
    readings.append(Reading("speed-up over saving", speed_up / saving, OF_THE_SAVING, ">="))
    return Finding(readings, ", ".join(f"{name} {batch / seconds[name]:.1f} videos/s" for name in limits))


def step(device: torch.device, size: Size, batch: int) -> Finding:
    """The training step with twin in bfloat16 against the reference's way: time and peak memory."""
    require(device, "bf16")
    overrides = (f"train.batch_size={batch}", "train.precision=bf16", "train.activation_checkpointing=none")
    settings = _settings(device, size, overrides)
    (case,) = (case for case in train_step.cases(settings) if case.naive is not None)
    row = measure(case, settings)
    assert row.naive_over_ours is not None
    readings = [Reading("naive over ours", row.naive_over_ours, OF_THE_STEP, ">=")]
    if row.peak_bytes_ours is not None and row.peak_bytes_naive is not None:  # some systems do not tell
        readings.append(Reading("their memory", row.peak_bytes_naive / row.peak_bytes_ours, OF_ITS_MEMORY, ">="))
    return Finding(readings, f"{row.name}: {row.ours_s:.3g} s")


def hour(device: torch.device, size: Size, frames: int) -> Finding:
    """Seconds and peak memory of one long video without aggregation in bfloat16, pixels to tokens."""
    require(device, "bf16")
    settings = _settings(device, size, (f"video.num_frames={frames}", "video.working_memory=4"))
    work = {"aggregation": to_dict(AggregationConfig()), "num_frames": frames}
    (calls,) = take_turns([Variant(f"{hour_growth.__name__}:encode", work)], settings)
    readings = [Reading("seconds", statistics.median(call.seconds for call in calls), SECONDS_OF_AN_HOUR)]
    peak = peak_bytes(calls)
    if peak is not None:  # some systems do not tell
        readings.append(Reading("GiB", peak / GIB, GIB_OF_AN_HOUR))
    return Finding(readings, f"{frames} frames")


def _settings(device: torch.device, size: Size, overrides: tuple[str, ...]) -> Settings:
    return Settings(None, (*size.overrides, *overrides), device.type, torch.get_num_threads(), ROUNDS)
