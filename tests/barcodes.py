"""Videos whose frames show their own number, written with many codecs into many containers."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.video.stream import VideoStream

WIDTH, HEIGHT, FPS = 128, 96, 25


class Kind(NamedTuple):
    """A codec, and the options of its encoder."""

    codec: str
    options: dict[str, str]


def _x265(settings: str) -> dict[str, str]:
    return {"x265-params": f"log-level=none:keyint=12:min-keyint=12:{settings}"}


KINDS = {
    "h264": Kind("libx264", {"bf": "0", "g": "12"}),
    "h264_b": Kind("libx264", {"bf": "2", "g": "12"}),
    "h264_open": Kind("libx264", {"bf": "3", "g": "12", "x264-params": "open-gop=1"}),
    "h264_refresh": Kind("libx264", {"g": "12", "x264-params": "intra-refresh=1"}),
    "h264_interlaced": Kind("libx264", {"g": "12", "x264-params": "tff=1"}),
    "hevc_open": Kind("libx265", _x265("open-gop=1")),
    "hevc_closed": Kind("libx265", _x265("open-gop=0")),
    "vp8": Kind("libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10", "deadline": "realtime"}),
    "vp9": Kind("libvpx-vp9", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10", "cpu-used": "8"}),
    "av1": Kind("libsvtav1", {"g": "12", "preset": "11"}),
    "mpeg4": Kind("mpeg4", {"g": "12"}),
    "mpeg4_b": Kind("mpeg4", {"bf": "2", "g": "12"}),
    "mpeg2": Kind("mpeg2video", {"g": "12"}),
    "mpeg2_b": Kind("mpeg2video", {"bf": "2", "g": "12"}),
    "mpeg1_b": Kind("mpeg1video", {"bf": "2", "g": "12"}),
    "wmv2": Kind("wmv2", {"g": "12"}),
    "mjpeg": Kind("mjpeg", {}),
    "flv1": Kind("flv", {"g": "12"}),
    "gif": Kind("gif", {}),
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
    with av.open(str(path), "w", format=format_name, options=options or {}) as container:
        stream = container.add_stream(kind.codec, rate=FPS, options=dict(kind.options))
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


def write_held(path: Path, kind: Kind, frames: int, seconds: float) -> Path:
    """Barcodes at 25 a second; the last one stands until `seconds`, as in recordings of a screen."""
    plain = write(path.with_name(f"plain_{path.name}"), kind, range(frames))
    with av.open(str(plain)) as container, av.open(str(path), "w") as output:
        stream = container.streams.best("video")
        copied = output.add_stream_from_template(stream)
        assert isinstance(stream, VideoStream) and stream.time_base is not None
        packets = [packet for packet in container.demux(stream) if packet.size]
        packets[-1].duration = round(seconds / stream.time_base) - packets[-1].pts
        for packet in packets:
            packet.stream = copied
            output.mux(packet)
    return path


def remux(
    source: Path,
    target: Path,
    start: float = 0.0,
    end: float | None = None,
    format_name: str | None = None,
    options: dict[str, str] | None = None,
    skip_packets: int = 0,
) -> Path:
    """Copy the packets from the key frame at or before `start` on; times count from `start`, as `-c copy` does it."""
    with (
        av.open(str(source)) as container,
        av.open(str(target), "w", format=format_name, options=options or {}) as output,
    ):
        stream = container.streams.best("video")
        assert isinstance(stream, VideoStream)
        copied = output.add_stream_from_template(stream)
        assert stream.time_base is not None
        # An AVI takes H.264 between start codes only; the muxer of MPEG-TS sees to that itself.
        needs_filter = target.suffix == ".avi" and stream.codec_context.name == "h264"
        to_annexb = BitStreamFilterContext("h264_mp4toannexb", stream) if needs_filter else None
        offset = round(start / stream.time_base)
        if start:
            container.seek(offset, stream=stream)
        for number, packet in enumerate(container.demux(stream)):
            if packet.dts is None or number < skip_packets:
                continue
            if end is not None and packet.pts * stream.time_base >= end:
                continue
            for filtered in [packet] if to_annexb is None else to_annexb.filter(packet):
                filtered.pts, filtered.dts, filtered.stream = filtered.pts - offset, filtered.dts - offset, copied
                output.mux(filtered)
    return target


def in_order(path: Path) -> Iterator[tuple[float | None, int]]:
    """Time and number of each frame, by decoding the file from its beginning with default options."""
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.best("video")):
            yield frame.time, numbers(frame.to_ndarray(format="rgb24")[None])[0]
