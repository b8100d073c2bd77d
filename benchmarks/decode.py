"""Decoding: seconds to read one clip, ours against the decoder's bare calls and against the reference's item."""

import time
from collections.abc import Callable, Sequence

from benchmarks import videos
from benchmarks.measure import Case, Variant
from benchmarks.settings import Settings, sections
from datasets import decode
from engine.host_memory import keep_freed_memory


def cases(settings: Settings) -> list[Case]:
    """Clips that decord reads too, whose bare calls are the limit; among made ones, also AV1, which it cannot read."""
    frames, root = sections(settings)[1].num_frames, videos.folder(settings)
    readable = {"paths": videos.paths(root)}
    found = [
        Case(
            f"decode, against decord, {frames} frames",
            ours=Variant(f"{__name__}:ours", readable),
            naive=Variant(f"{__name__}:naive", readable),
            limit=Variant(f"{__name__}:limit", {**readable, "decoder": "decord"}),
        )
    ]
    if settings.data is None:
        others = {"paths": [str(path) for path in sorted((root / "videos").glob("*.mkv"))]}
        found.append(
            Case(
                f"decode, PyAV for AV1, {frames} frames",
                ours=Variant(f"{__name__}:ours", others),
                limit=Variant(f"{__name__}:limit", {**others, "decoder": "pyav"}),
            )
        )

    return found


def ours(settings: Settings, paths: list[str]) -> Callable[[], float]:
    """Seconds a clip of `read_video`."""
    keep_freed_memory()
    video = sections(settings)[1]
    choose = videos.chooser(video)
    return lambda: _seconds_each(lambda path: decode.read_video(path, video.image_size, choose), paths)


def naive(settings: Settings, paths: list[str]) -> Callable[[], float]:
    """Seconds a clip of the reference's item."""
    video = sections(settings)[1]
    choose = videos.chooser(video)
    return lambda: _seconds_each(lambda path: videos.naive_clip(path, video, choose), paths)


def limit(settings: Settings, paths: list[str], decoder: str) -> Callable[[], float]:
    """Seconds a clip of the decoder's bare calls for the same frames."""
    keep_freed_memory()
    video = sections(settings)[1]
    jobs = [videos.job(path, video.image_size, videos.chooser(video)) for path in paths]
    read = {"decord": videos.raw_decord, "pyav": videos.raw_pyav}[decoder]
    return lambda: _seconds_each(read, jobs)


def _seconds_each(read: Callable[..., object], jobs: Sequence[str] | Sequence[videos.Job]) -> float:
    started = time.perf_counter()
    for job in jobs:
        read(job)
    return (time.perf_counter() - started) / len(jobs)
