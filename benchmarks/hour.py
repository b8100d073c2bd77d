"""An hour of video, from its file to one embedding: ours against bare decoding and the machine's matrix products.

Without other settings: one frame a second of a made H.264 file of 640 x 360 pixels, 25 frames a second and a key frame
every 250, through ViT-B/16 at 224 px, of which 225 frames and 12 patches merge in each block. The reference's way in
plain lines has no row: its attention maps over time alone would take 122 GB (`--plots` shows how far it gets).
"""

import atexit
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from benchmarks import encoder, videos
from benchmarks.measure import Case, LongCase, Variant
from benchmarks.settings import Settings, sections
from configs.load import from_dict, to_dict
from configs.schema import AggregationConfig
from datasets import decode
from engine.host_memory import keep_freed_memory
from models.testa.video_encoder import VideoEncoder

MODULE = "benchmarks.hour"
HOUR = (
    "video.num_frames=3600",
    "video.working_memory=0.5",
    "aggregation.frames_per_block=225",
    "aggregation.patches_per_block=12",
)
FPS, WIDTH, HEIGHT, KEY_EVERY = 25, 640, 360, 250
SECONDS_ENCODED = 60
"""So much is encoded; the file repeats its packets, each time under later time stamps."""


def cases(settings: Settings) -> list[Case]:
    """With the configured aggregation and without, in bfloat16 and float32; no call warms up, as each takes minutes."""
    _, video, configured = sections(of_an_hour(settings))
    path = str(made_file(video.num_frames))
    aggregations = [configured] + ([AggregationConfig()] if configured.reducer != "none" else [])
    found: list[Case] = []
    for aggregation, dtype in itertools.product(aggregations, ("bf16", "fp32")):
        work = {"path": path, "dtype": dtype, "aggregation": to_dict(aggregation)}
        name = f"hour {dtype}, {video.num_frames} frames, {encoder.described(aggregation)}"
        ours, bound = Variant(f"{MODULE}:ours", work), Variant(f"{MODULE}:limit", work)
        found.append(LongCase(name, ours, limit=bound))
    return found


def of_an_hour(settings: Settings) -> Settings:
    """The settings, with the hour's own for what the command line leaves open."""
    given = {override.partition("=")[0] for override in settings.overrides}
    open_sections = [setting for setting in HOUR if setting.partition("=")[0] not in given]
    if any(key.startswith("aggregation.") for key in given):
        open_sections = [setting for setting in open_sections if not setting.startswith("aggregation.")]
    return replace(settings, overrides=(*open_sections, *settings.overrides))


def ours(settings: Settings, path: str, dtype: str, aggregation: dict[str, Any]) -> Callable[[], None]:
    """Read the file and encode it."""
    model, video, _ = sections(of_an_hour(settings))
    reducer = from_dict(AggregationConfig, aggregation, "aggregation")
    torch.manual_seed(0)
    built = VideoEncoder(model, video, reducer).eval().to(settings.device, encoder.DTYPES[dtype])
    built.fold_for_inference()
    choose = videos.chooser(video)
    keep_freed_memory()

    def work() -> None:
        frames = decode.read_video(path, video.image_size, choose).unsqueeze(0).to(settings.device)
        with torch.no_grad():
            embedding = built(built.normalised(frames)).tokens[:, 0]
        assert embedding.isfinite().all()

    return work


def limit(settings: Settings, path: str, dtype: str, aggregation: dict[str, Any]) -> Callable[[], float]:
    """Seconds of bare decoding, by FFmpeg with all threads, plus those of the encoder's matrix products."""
    model, video, _ = sections(of_an_hour(settings))
    reducer = from_dict(AggregationConfig, aggregation, "aggregation")
    products = encoder.executed_products(model, video, reducer)
    multiply = encoder.MachineLimit(products, torch.device(settings.device), encoder.DTYPES[dtype])
    job = videos.job(path, video.image_size, videos.chooser(video))

    def work() -> float:
        started = time.perf_counter()
        videos.raw_pyav(job, settings.threads)
        return time.perf_counter() - started + multiply()

    return work


def made_file(seconds: int, key_every: int = KEY_EVERY) -> Path:
    """A file of so many seconds, which goes when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="benchmark-hour-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    part, path = folder / "part.mp4", folder / "hour.mp4"
    _encode(part, min(seconds, SECONDS_ENCODED), key_every)
    _repeat(part, path, seconds)
    part.unlink()
    return path


def _encode(path: Path, seconds: int, key_every: int) -> None:
    """A picture, larger than the screen, that a camera pans over; each key frame of the default shows another one."""
    options = {"g": str(key_every), "keyint_min": str(key_every), "sc_threshold": "0", "preset": "veryfast"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(seconds * FPS):
            step = index % KEY_EVERY
            if step == 0:
                landscape = _landscape(np.random.default_rng(index))
            view = landscape[step // 3 : step // 3 + HEIGHT, step : step + WIDTH]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(view), format="rgb24")))
        container.mux(stream.encode())


def _landscape(rng: np.random.Generator) -> np.ndarray:
    """Soft patches of colour with some grain, (HEIGHT + KEY_EVERY, WIDTH + KEY_EVERY, 3)."""
    height, width = HEIGHT + KEY_EVERY, WIDTH + KEY_EVERY
    coarse = torch.from_numpy(rng.integers(0, 256, (1, 3, height // 40, width // 40))).float()
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0]
    grain = torch.from_numpy(rng.normal(0, 6, (1, height, width))).float()
    return (smooth + grain).clamp(0, 255).permute(1, 2, 0).numpy().astype(np.uint8)


def _repeat(part: Path, path: Path, seconds: int) -> None:
    """Write the packets of `part` again and again, until the file lasts `seconds`."""
    with av.open(str(part)) as source, av.open(str(path), "w") as container:
        given = source.streams.video[0]
        assert given.time_base is not None and given.duration is not None
        stream = container.add_stream_from_template(given)
        packets = [packet for packet in source.demux(given) if packet.dts is not None]
        lasts = round(Fraction(len(packets), FPS) / given.time_base)
        end = round(seconds / given.time_base)

        for repeat in range(-(-end // lasts)):
            for packet in packets:
                assert packet.pts is not None and packet.dts is not None
                copy = av.Packet(bytes(packet))
                copy.pts, copy.dts = packet.pts + repeat * lasts, packet.dts + repeat * lasts
                copy.time_base, copy.duration = packet.time_base, packet.duration
                copy.is_keyframe = packet.is_keyframe
                copy.stream = stream
                if copy.pts < end:
                    container.mux(copy)
