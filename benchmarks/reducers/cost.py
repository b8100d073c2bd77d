"""How long encoding one video takes with each reducer, and how much memory: processes that take turns."""

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.child import Work
from benchmarks.measure import Variant, peak_bytes, take_turns
from benchmarks.reducers.schedules import Matched
from benchmarks.settings import Settings
from configs.load import from_dict, to_dict
from configs.schema import RetrievalConfig
from engine.checkpoint_folder import write_json
from engine.host_memory import keep_freed_memory
from models.systems import piece

VIDEOS = 8
"""In one batch: a single one of these small videos is over before the clock can tell."""
SENTENCE = "a video"
"""What a vocabulary is learned from: texts are not encoded."""
SETTINGS = Settings(config=None, overrides=(), device="cpu", threads=1, rounds=15)


def measure(
    reducers: dict[str, Matched], config: RetrievalConfig, path: Path, settings: Settings = SETTINGS
) -> dict[str, dict[str, Any]]:
    """Seconds a video, and bytes of a batch of VIDEOS beside its pixels and the weights, by reducer; also in `path`.

    `config` is that of retrieval without a reducer.
    """
    calls = take_turns([variant_of(matched, config) for matched in reducers.values()], settings)

    measured: dict[str, dict[str, Any]] = {}
    for name, own in zip(reducers, calls, strict=True):
        seconds = statistics.median(call.seconds for call in own) / VIDEOS
        measured[name] = {"seconds": seconds, "peak_bytes": peak_bytes(own)}

    write_json(path, measured)
    return measured


def variant_of(matched: Matched, config: RetrievalConfig) -> Variant:
    """The work that is measured for a reducer."""
    reduced = replace(config, model=matched.model, video=matched.video, aggregation=matched.aggregation)
    return Variant(f"{__name__}:forward", {"config": to_dict(reduced)})


def forward(settings: Settings, config: dict[str, Any]) -> Work:
    """A model with random weights, prepared for inference, and a batch of random pixels for its video encoder."""
    retrieval = from_dict(RetrievalConfig, config, "retrieval")
    system, video = retrieval.model.name, retrieval.video
    tokenizer = piece(system, "tokenizer").make_tokenizer([SENTENCE], retrieval.model.text.vocab_size)

    torch.manual_seed(0)
    model = piece(system, "build")(retrieval, tokenizer).eval().to(settings.device)
    model.fold_for_inference(torch.float32)
    pixels = torch.randn(VIDEOS, video.num_frames, 3, video.image_size, video.image_size, device=settings.device)
    keep_freed_memory()  # not before: what building has freed would hide part of the peak

    def encode() -> None:
        with torch.no_grad():
            model.video_tokens(pixels)

    return encode
