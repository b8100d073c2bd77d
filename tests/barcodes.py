"""Videos whose frames show their own number, written with many codecs into many containers."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.stream import VideoStream

WIDTH, HEIGHT, FPS = 128, 96, 25


class Kind(NamedTuple):
    """A codec with its settings; the options of the encoder are `key=value` in one text."""

    codec: str
    options: str = ""
    b_frames: int = 0
    key_interval: int = 12


H264 = Kind("libx264", "bf=2:g=12")
KINDS = {
    "h264": Kind("libx264", "bf=0:g=12"),
    "h264_b": H264,
    "h264_open": Kind("libx264", "bf=3:g=12:x264-params=open-gop=1"),
    "h264_refresh": Kind("libx264", "g=12:x264-params=intra-refresh=1"),
    "h264_interlaced": Kind("libx264", "g=12:x264-params=tff=1"),
    "hevc_open": Kind("libx265", "x265-params=keyint=12:min-keyint=12:open-gop=1:log-level=none"),
    "hevc_closed": Kind("libx265", "x265-params=keyint=12:open-gop=0:log-level=none"),
    "vp8": Kind("libvpx", "g=12:auto-alt-ref=1:lag-in-frames=10:deadline=realtime"),
    "vp9": Kind("libvpx-vp9", "g=12:lag-in-frames=10:auto-alt-ref=1:cpu-used=8:deadline=realtime"),
    "av1": Kind("libsvtav1", "preset=12:g=12"),
    "mpeg4": Kind("mpeg4", "g=12"),
    "mpeg4_b": Kind("mpeg4", "bf=2:g=12"),
    "mpeg2": Kind("mpeg2video", "g=12"),
    "mpeg2_b": Kind("mpeg2video", "bf=2:g=12"),
    "mpeg1_b": Kind("mpeg1video", "bf=2:g=12"),
    "wmv2": Kind("wmv2", "g=12"),
    "mjpeg": Kind("mjpeg"),
    "flv1": Kind("flv", "g=12"),
    "gif": Kind("gif"),
}


def barcode(number: int) -> np.ndarray:
    """A picture (96, 128, 3) that shows `number` as 4 x 3 blocks, a bit each."""
    bits = np.array([number >> bit & 1 for bit in range(12)], np.uint8).reshape(3, 4)
    return np.repeat(np.kron(bits * 200 + 28, np.ones((32, 32), np.uint8))[..., None], 3, axis=2)


def numbers(pictures: np.ndarray) -> list[int]:
    """The numbers that pictures (T, H, W, 3) show."""
    height, width = pictures.shape[1:3]
    rows, columns = (np.arange(3) * 2 + 1) * height // 6, (np.arange(4) * 2 + 1) * width // 8
    bits = pictures.astype(float).mean(3)[:, rows][:, :, columns].reshape(len(pictures), 12) > 128
    return (bits << np.arange(12)).sum(1).tolist()


def write(
    path: Path, kind: Kind, ticks: Sequence[int], format_name: str | None = None, options: dict[str, str] | None = None
) -> Path:
    """Write one barcode for each of `ticks`, the times in twenty-fifths of a second."""
    settings = dict(pair.split("=", 1) for pair in kind.options.split(":") if pair) if kind.options else {}
    if "-params=" in kind.options:
        plain, _, params = kind.options.partition(f"{kind.codec.removeprefix('lib')}-params=")
        settings = dict(pair.split("=", 1) for pair in plain.split(":") if pair)
        settings[f"{kind.codec.removeprefix('lib')}-params"] = params
    with av.open(str(path), "w", format=format_name, options=options or {}) as container:
        stream = container.add_stream(kind.codec, rate=FPS, options=settings)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(kind.codec, "yuv420p")
        stream.codec_context.time_base = Fraction(1, FPS)
        stream.codec_context.thread_count = 1
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(barcode(number), format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = tick, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(
    source: Path, target: Path, start: float = 0.0, end: float | None = None, format_name: str | None = None,
    options: dict[str, str] | None = None, skip_packets: int = 0,
) -> Path:
    """Copy the packets from the key frame at or before `start` on; times count from `start`, as `-c copy` does it."""
    with av.open(str(source)) as container, av.open(str(target), "w", format=format_name, options=options or {}) as output:
        stream = container.streams.best("video")
        assert isinstance(stream, VideoStream)
        copied = output.add_stream_from_template(stream)
        assert stream.time_base is not None
        offset = round(start / stream.time_base)
        if start:
            container.seek(offset, stream=stream)
        for number, packet in enumerate(container.demux(stream)):
            if packet.dts is None or number < skip_packets:
                continue
            if end is not None and packet.pts * stream.time_base >= end:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, copied
            output.mux(packet)
    return target


def in_order(path: Path) -> Iterator[tuple[float | None, int]]:
    """Time and number of each frame, by decoding the file from its beginning with default options."""
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.best("video")):
            yield frame.time, numbers(frame.to_ndarray(format="rgb24")[None])[0]
