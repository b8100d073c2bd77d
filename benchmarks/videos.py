"""The videos that decoding and loading are measured on: a folder of the user's, or some made here; and how to read one.

Besides our own reader there are the decoder's bare calls, which are the limit, and the reference's item.
"""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import decord
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from benchmarks.settings import Settings
from configs.schema import VideoConfig
from datasets import decode, sampling
from datasets.annotations import manifest
from datasets.records import is_image

MANIFESTS = ("captions.jsonl", "manifest.jsonl")
MADE = {**dict.fromkeys((f"{number}.mp4" for number in range(4)), "libx264"), "av1.mkv": "libsvtav1"}
"""Files and their codecs; decord cannot open the last."""
FRAMES, FPS, WIDTH, HEIGHT = 500, 25, 320, 240
"""20 s each, of the size that data sets of web videos come in."""


class Job(NamedTuple):
    """What is read: a file, at a size in pixels, and which of its frames, (T,) sorted."""

    path: str
    size: int
    indices: np.ndarray


def folder(settings: Settings) -> Path:
    """`settings.data`, or a folder of made videos that goes when this process ends."""
    if settings.data is not None:
        return Path(settings.data)
    made = Path(tempfile.mkdtemp(prefix="benchmark-videos-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    make(made)
    return made


def make(root: Path) -> None:
    """Write the videos of MADE and a manifest of those that decord opens."""
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder's: errors alone
    (root / "videos").mkdir()
    with _scheduling_kept(), (root / MANIFESTS[0]).open("w", encoding="utf-8") as lines:
        for number, (name, codec) in enumerate(MADE.items()):
            _write(root / "videos" / name, codec, np.random.default_rng(number))
            if name.endswith(".mp4"):
                lines.write(json.dumps({"video": name, "caption": f"patches of colour number {number} drift"}) + "\n")


@contextmanager
def _scheduling_kept() -> Iterator[None]:
    """The AV1 encoder, as root, gives its caller real-time priority, which all that this starts would inherit."""
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


def paths(root: Path) -> list[str]:
    """The distinct videos that the folder's manifest names, whole though it may name parts; ValueError if none."""
    found = next((root / name for name in MANIFESTS if (root / name).is_file()), None)
    if found is None:
        raise ValueError(f"--data: {root} holds neither {' nor '.join(MANIFESTS)}; it lists the videos in its videos/")
    named = dict.fromkeys(record.video for record in manifest.read(found, root / "videos"))
    videos = [path for path in named if not is_image(path)]
    if not videos:
        raise ValueError(f"--data: {found} names no video")
    return videos


def chooser(video: VideoConfig) -> Callable[[int], np.ndarray]:
    """The frames that evaluation samples, the same at every call. ValueError for a rule that asks for times."""
    if video.eval_sampling in sampling.TIMED_SAMPLERS:
        raise ValueError(
            f"video.eval_sampling: {video.eval_sampling} needs times, which bare decoders do not tell; take uniform"
        )
    rng = np.random.default_rng(0)
    return lambda length: sampling.SAMPLERS[video.eval_sampling](video.num_frames, length, rng)


def job(path: str, size: int, choose: Callable[[int], np.ndarray]) -> Job:
    """What our reader reads of a video, as the bare calls take it. DecodeError as it raises it."""
    chosen: list[np.ndarray] = []

    def keep(length: int) -> np.ndarray:
        chosen.append(choose(length))
        return chosen[-1]

    decode.read_video(path, size, keep)
    return Job(path, size, chosen[-1])


def raw_decord(of: Job) -> object:
    """The decoder's own calls, one thread: the file opened, the frames at their size, nothing else."""
    reader = decord.VideoReader(of.path, width=of.size, height=of.size, num_threads=1)
    return reader.get_batch(of.indices)


def raw_pyav(of: Job, threads: int = 1) -> list[av.VideoFrame]:
    """The same through PyAV, with so many threads; every frame up to the last one wanted has to be decoded."""
    wanted, reformatter = set(of.indices.tolist()), VideoReformatter()
    frames = []
    with av.open(of.path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        stream.thread_type = "AUTO"
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                small = reformatter.reformat(frame, of.size, of.size, "rgb24", interpolation="BILINEAR", threads=1)
                frames.append(small)
            if index == of.indices[-1]:
                break
    return frames


def naive_clip(path: str, video: VideoConfig, choose: Callable[[int], np.ndarray]) -> Tensor:
    """The reference's item: decord with as many threads as it likes, then float pixels (T, 3, H, W), normalised."""
    reader = decord.VideoReader(path, width=video.image_size, height=video.image_size)
    frames = decord.bridge.to_torch(reader.get_batch(choose(len(reader))))
    clip = frames.permute(0, 3, 1, 2).float()
    if clip.max() > 1:
        clip.div_(255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (video.pixel_mean, video.pixel_std))
    return clip.sub_(mean).div_(std)


def _write(path: Path, codec: str, rng: np.random.Generator) -> None:
    """Soft patches of colour that drift over one another: they move everywhere, as what a hand-held camera sees."""
    layers = [_patches(rng, cell) for cell in (8, 20)]
    steps = rng.integers(-3, 4, (len(layers), 2)) * 2 + 1
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"preset": "veryfast"} if codec == "libx264" else {})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for time in range(FRAMES):
            moved = [np.roll(layer, tuple(time * step // 2), (0, 1)) for layer, step in zip(layers, steps, strict=True)]
            pixels = np.mean(moved, axis=0).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _patches(rng: np.random.Generator, cell: int) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) random colours in cells of so many pixels, their edges smoothed."""
    coarse = torch.from_numpy(rng.integers(0, 256, (1, 3, HEIGHT // cell, WIDTH // cell))).float()
    smooth = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")[0]
    return smooth.permute(1, 2, 0).numpy().astype(np.uint8)
