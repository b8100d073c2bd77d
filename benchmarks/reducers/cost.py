"""How long encoding one video takes under each schedule, and how much memory that needs, on one thread.

Other work on the machine slows whole minutes down. So all schedules take turns, each round anew, in CPU seconds instead
of those of the clock, and the least of all rounds counts.
"""

import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.child import Work
from benchmarks.measure import Child, Variant, peak_bytes, take_turns
from benchmarks.reducers.schedules import Matched, without_defaults
from benchmarks.settings import Settings
from configs.load import from_dict, to_dict
from configs.schema import RetrievalConfig
from engine.checkpoint_folder import read_json, write_json
from engine.host_memory import keep_freed_memory
from models.systems import piece
from tasks.base import progress_bar

VIDEOS = 8
"""In one batch: a single one of these small videos is over before the clock can tell."""
ENOUGH_PIXELS = 4e6
"""A batch has no more videos than that many pixels; a large video is measured alone."""
SENTENCE = "a video"
"""What a vocabulary is learned from: texts are not encoded."""
SETTINGS = Settings(config=None, overrides=(), device="cpu", threads=1, rounds=6)
PEAK_ROUNDS = 2
Measured = dict[str, dict[str, Any]]
"""A schedule's key -> `seconds` a video, and `peak_bytes` of a batch beside its pixels and the weights."""


def key_of(matched: Matched) -> str:
    """What tells a schedule from all others of the same encoder: its settings.

    Those at their defaults are left out, and what training alone draws.
    """
    settings = without_defaults(matched.overrides)
    return " ".join(one for one in settings if not one.startswith("aggregation.train_keep="))


def read_measured(path: Path) -> Measured:
    """What a folder has measured so far, by today's keys; nothing where there is no file."""
    if not path.exists():
        return {}
    return {" ".join(without_defaults(key.split(" "))): own for key, own in read_json(path).items()}


def times(schedules: Sequence[Matched], config: RetrievalConfig, path: Path, settings: Settings = SETTINGS) -> Measured:
    """The measurement of schedules, by key; what `path` lacks of them is measured, and kept there.

    The first schedule takes nothing away. `config` is that of retrieval without a reducer.
    """
    known = read_measured(path)
    by_key = {key_of(matched): matched for matched in schedules}
    missing = [key for key in by_key if key not in known]
    if not missing:
        return known

    # Machines differ from day to day: what is added later is held against the first schedule, measured again.
    reference = key_of(schedules[0])
    keys = list(dict.fromkeys((reference, *missing)))
    seconds = seconds_of([variant_of(by_key[key], config).arguments for key in keys], settings)
    scale = known[reference]["seconds"] / seconds[0] if reference in known else 1.0
    known |= {key: {"seconds": scale * own} for key, own in zip(keys, seconds, strict=True) if key in missing}
    write_json(path, known)
    return known


def seconds_of(encoders: list[dict[str, Any]], settings: Settings = SETTINGS) -> list[float]:
    """The least CPU seconds a video of each encoder; they take turns in one process, built when it is their turn."""
    with Child(Variant(f"{__name__}:forwards", {"encoders": encoders}), settings) as child:
        rounds = []
        for _ in progress_bar(range(settings.rounds), "times"):
            rounds.append([child.call().seconds for _ in encoders])
    return [min(own) for own in zip(*rounds, strict=True)]


def add_peaks(schedules: Sequence[Matched], config: RetrievalConfig, path: Path, settings: Settings = SETTINGS) -> None:
    """Measure the memory of schedules that `path` has the seconds of, each in a process of its own."""
    known = read_measured(path)
    for matched in progress_bar(schedules, "memory"):
        own = known[key_of(matched)]
        if "peak_bytes" not in own:
            (calls,) = take_turns([variant_of(matched, config)], replace(settings, rounds=PEAK_ROUNDS))
            own["peak_bytes"] = peak_bytes(calls)
            write_json(path, known)


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
    pixels = torch.randn(videos_of(video.num_frames, video.image_size), video.num_frames, 3, *[video.image_size] * 2)
    pixels = pixels.to(settings.device)
    keep_freed_memory()  # not before: what building has freed would hide part of the peak

    def encode() -> None:
        with torch.no_grad():
            model.video_tokens(pixels)

    return encode


def videos_of(num_frames: int, image_size: int) -> int:
    """How many videos are encoded at a time."""
    return max(1, min(VIDEOS, round(ENOUGH_PIXELS / (num_frames * image_size**2))))


def forwards(settings: Settings, encoders: list[dict[str, Any]]) -> Work:
    """Work whose calls take turns: each builds the next encoder, runs it once to warm up, and returns its CPU seconds.

    The seconds are those of one video.
    """
    calls = 0

    def encode_next() -> float:
        nonlocal calls
        config = encoders[calls % len(encoders)]["config"]
        calls += 1
        encode = forward(settings, config)
        encode()

        begun = time.process_time()
        encode()
        seconds = time.process_time() - begun

        del encode
        gc.collect()
        return seconds / videos_of(config["video"]["num_frames"], config["video"]["image_size"])

    return encode_next
