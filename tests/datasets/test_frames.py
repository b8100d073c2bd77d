"""The frames that are read of files of many kinds, against all frames decoded in order.

Every frame shows its own number, so a wrong picture at the right time is seen.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from datasets import decode, sampling
from tests import barcodes
from tests.barcodes import KINDS

FRAMES = 40
CONTAINERS = {
    "h264": "mp4 mkv avi ts flv", "h264_b": "mp4 mov mkv avi ts m2ts mpg flv h264", "h264_open": "mp4 mkv avi ts",
    "h264_refresh": "mp4 mkv ts", "h264_interlaced": "mp4 ts", "hevc_open": "mp4 mkv ts hevc", "hevc_closed": "mp4",
    "vp8": "webm", "vp9": "webm mp4", "av1": "webm mp4", "mpeg4": "mp4 avi", "mpeg4_b": "mp4 mkv avi m4v ts",
    "mpeg2": "ts mpg vob", "mpeg2_b": "ts m2ts mpg vob mkv mp4 m2v", "mpeg1_b": "mpg mkv", "wmv2": "wmv avi",
    "mjpeg": "avi mov", "flv1": "flv", "gif": "gif",
}  # fmt: skip
FORMATS = {"m2ts": "mpegts", "m2v": "mpeg2video"}
ODD_KINDS = ("h264_b", "h264_open", "hevc_open", "mpeg4_b")


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    os.environ.setdefault("SVT_LOG", "1")
    before = av.logging.get_level()
    av.logging.set_level(av.logging.PANIC)
    yield
    av.logging.set_level(before)


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """The AV1 encoder, as root, gives its caller real-time priority."""
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each of ODD_KINDS, to remux."""
    folder = tmp_path_factory.mktemp("plain")
    return {kind: barcodes.write(folder / f"{kind}.mp4", KINDS[kind], range(FRAMES)) for kind in ODD_KINDS}


def expected_numbers(
    frames: list[tuple[float | None, int]], rate: float, num_frames: int, start: float | None, end: float | None
) -> list[int]:
    """What `uniform` sampling takes of the part, by the rule: a frame stands until the next one comes."""
    times = [time for time, _ in frames]
    known = [time for time in times if time is not None]
    if len(known) == len(times) and all(later > earlier for earlier, later in zip(known, known[1:], strict=False)):
        times = [time - known[0] for time in known]
    else:
        times = [place / rate for place in range(len(frames))]
    first = max(place for place, time in enumerate(times) if time <= (start or 0) + 1e-3)
    stop = max(first + 1, sum(time < end - 1e-3 for time in times)) if end is not None else len(times)
    return [frames[first + place][1] for place in sampling.uniform(num_frames, stop - first, np.random.default_rng(0))]


def check(path: Path, parts: tuple[tuple[float | None, float | None], ...] = ((None, None), (0.37, 0.9))) -> None:
    frames = list(barcodes.in_order(path))
    assert frames
    with av.open(str(path)) as container:
        rate = float(container.streams.best("video").average_rate or barcodes.FPS)

    def read(choose: decode.ChooseFrames, start: float | None = None, end: float | None = None) -> list[int]:
        return barcodes.numbers(decode.read(str(path), 64, choose, start, end).frames)

    # One at a time, from the last to the first: no frame may depend on what was read before it.
    shown = [number for _, number in frames]
    for place in range(len(frames) - 1, -1, -3):
        assert read(lambda length, place=place: np.array([place])) == [shown[place]]
    for num_frames in (8, 12, 32, 96):
        for start, end in parts:
            expected = expected_numbers(frames, rate, num_frames, start, end)
            choose = partial(sampling.uniform, num_frames, rng=np.random.default_rng(0))
            assert read(choose, start, end) == expected


@pytest.mark.parametrize(
    ("kind", "suffix"), [(kind, suffix) for kind, suffixes in CONTAINERS.items() for suffix in suffixes.split()]
)
def test_codecs_and_containers(tmp_path: Path, kind: str, suffix: str) -> None:
    with scheduling_kept():
        path = barcodes.write(tmp_path / f"a.{suffix}", KINDS[kind], range(FRAMES), FORMATS.get(suffix))
    check(path)


@pytest.mark.parametrize("kind", ODD_KINDS)
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
def test_cuts(tmp_path: Path, plain: dict[str, Path], kind: str, suffix: str) -> None:
    """Copied packets from a key frame on: an mp4 hides those before the cut with an edit list."""
    path = barcodes.remux(plain[kind], tmp_path / f"a.{suffix}", start=0.6, end=1.4)
    try:
        list(barcodes.in_order(path))
    except av.FFmpegError:
        pytest.skip("cannot be decoded in order")
    check(path, parts=((None, None), (0.2, 0.5)))


@pytest.mark.parametrize("kind", ODD_KINDS)
@pytest.mark.parametrize(
    ("name", "ticks", "options"),
    [
        ("fragments.mp4", range(FRAMES), {"movflags": "frag_keyframe+empty_moov"}),
        ("frames.mp4", range(FRAMES), {"movflags": "frag_every_frame+default_base_moof+empty_moov"}),
        ("offset.mkv", range(75, 75 + FRAMES), {}),
        ("offset.mp4", range(75, 75 + FRAMES), {}),
        ("offset.ts", range(75, 75 + FRAMES), {}),
        ("variable.mp4", [tick + 3 * (tick // 7) for tick in range(FRAMES)], {}),
        ("variable.mkv", [tick + 3 * (tick // 7) for tick in range(FRAMES)], {}),
        ("one.mp4", [0], {}),
        ("one.ts", [0], {}),
    ],
)
def test_oddities(tmp_path: Path, kind: str, name: str, ticks: list[int], options: dict[str, str]) -> None:
    path = barcodes.write(tmp_path / name, KINDS[kind], ticks, options=options)
    check(path, parts=((None, None),) if len(ticks) == 1 else ((None, None), (0.37, 0.9)))


@pytest.mark.parametrize("kind", ["h264_b", "mpeg2_b"])
def test_a_stream_that_begins_within_a_group(tmp_path: Path, kind: str) -> None:
    whole = barcodes.write(tmp_path / "whole.ts", KINDS[kind], range(FRAMES)).read_bytes()
    path = tmp_path / "tail.ts"
    path.write_bytes(whole[len(whole) // 188 // 3 * 188 :])
    assert len(list(barcodes.in_order(path))) < FRAMES
    check(path)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_the_last_picture_stands(tmp_path: Path, suffix: str) -> None:
    path = barcodes.write_held(tmp_path / f"a.{suffix}", KINDS["h264_b"], frames=20, seconds=10.0)
    for start, end in ((0.9, 8.0), (5.0, 8.0), (9.9, None)):
        clip = decode.read(str(path), 64, lambda length: np.zeros(2, np.int64), start, end)
        assert barcodes.numbers(clip.frames) == [19, 19]
    with pytest.raises(decode.DecodeError, match="start 10.5 s lies behind the end of the video, which is 10.0"):
        decode.read_video(str(path), 64, np.arange, 10.5)


def test_a_file_that_changes_is_listed_again(tmp_path: Path) -> None:
    path = barcodes.write(tmp_path / "a.avi", KINDS["mpeg4"], range(20))
    assert len(decode.read_video(str(path), 64, np.arange)) == 20
    barcodes.write(path, KINDS["mpeg4"], range(30))
    assert len(decode.read_video(str(path), 64, np.arange)) == 30


def test_a_frame_that_cannot_be_decoded_is_not_shown(tmp_path: Path) -> None:
    """One packet of an mp4 is overwritten with zeros: all frames but its own come, each still with its number."""
    path = barcodes.write(tmp_path / "a.mp4", KINDS["h264"], range(60))
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    position, size = packets[23]
    content[position : position + size] = bytes(size)
    path.write_bytes(content)
    shown = barcodes.numbers(decode.read(str(path), 64, np.arange).frames)
    assert shown == [number for number in range(60) if number != 23]


@pytest.mark.parametrize("suffix", ["ts", "avi", "mkv", "mov"])
def test_remuxed_clips_give_the_same_pictures(real_data: Path, tmp_path: Path, suffix: str) -> None:
    for name in ("yoga.mp4", "making_cake.mp4"):
        source = real_data / "clips/videos" / name
        path = barcodes.remux(source, tmp_path / f"{name}.{suffix}")
        choose = partial(sampling.uniform, 12, rng=np.random.default_rng(0))
        expected, found = (decode.read(str(file), 64, choose) for file in (source, path))
        assert (expected.frames == found.frames).all(), name


def test_cut_clips_give_the_same_pictures(real_data: Path, tmp_path: Path) -> None:
    """A cut from 4 s on shows what the original shows from there."""
    for name in ("yoga.mp4", "arm_wrestling.mp4"):
        source = real_data / "clips/videos" / name
        path = barcodes.remux(source, tmp_path / name, start=4.0, end=8.0)
        expected = decode.read(str(source), 64, np.arange, 4.0, 6.0)
        found = decode.read(str(path), 64, np.arange, 0.0, 2.0)
        assert (expected.frames == found.frames).all(), name


@pytest.mark.soak
def test_memory_stays_level_over_many_reads(tmp_path: Path) -> None:
    paths = [
        barcodes.write(tmp_path / name, KINDS[kind], range(FRAMES))
        for name, kind in (("a.mp4", "h264_open"), ("b.ts", "h264_b"), ("c.avi", "mpeg4_b"), ("d.mkv", "vp9"))
    ]

    def megabytes() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def read(times: int) -> None:
        for number in range(times):
            decode.read_video(str(paths[number % len(paths)]), 64, partial(sampling.uniform, 12, rng=None))

    read(500)
    before = megabytes()
    read(5000)
    assert megabytes() - before < 20
