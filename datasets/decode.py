"""Frames out of video files: decord reads, PyAV what decord cannot (AV1, say); images come through Pillow.

Readers are opened where they are used and closed before the call ends, so nothing is shared with a forked worker and
nothing piles up. Both decoders count frames in the order they are shown, turn them by the file's display matrix, and
resize bilinearly in swscale, so that which of the two has read a file hardly shows in the pixels. A file may be a part
of a tar file: FFmpeg's `subfile` protocol shows that part to both as a file of its own, and nothing is copied.
"""

import io
import os
import re
import stat
import struct
from collections.abc import Callable

import av
import decord
import numpy as np
import torch
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import ExifTags, Image
from torch import Tensor

from datasets.records import ShardMember

ChooseFrames = Callable[[int], np.ndarray]
"""From a number of frames to the sorted indices of those wanted, repeats allowed; the same whenever it is asked."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by the orientation in its EXIF tags."""


class DecodeError(Exception):
    """A file that cannot be read; `reason` is one line."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def read_image(file: str | ShardMember) -> Tensor:
    """Read an image, turned upright: uint8 (3, H, W), a view of (H, W, 3). DecodeError if it cannot be read."""
    path = str(file)
    try:
        with Image.open(_bytes_of(file) if isinstance(file, ShardMember) else file) as image:
            image.load()
            # Not by ImageOps: that writes all tags anew, and fails where one of them is odd. Turned and converted only
            # if need be, as each copies the picture even where it changes nothing.
            turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            turned = image if turn is None else image.transpose(turn)
            pixels = np.array(turned if turned.mode == "RGB" else turned.convert("RGB"))
    # Pillow says SyntaxError of a broken PNG, and the others but the first two of broken tags.
    except (
        OSError,
        ValueError,
        SyntaxError,
        LookupError,
        TypeError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise DecodeError(path, f"Pillow: {_one_line(error)}") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_video(
    file: str | ShardMember, size: int, choose: ChooseFrames, start: float | None = None, end: float | None = None
) -> Tensor:
    """Read chosen frames of a video, squashed to a square: uint8 (T, 3, size, size), a view of (T, size, size, 3).

    The pixels lie as the decoder wrote them; whoever needs them in another order copies them once, to where they go.
    `choose` gets the number of frames between `start` and `end` (seconds from the first frame; by default all) and
    says which to take. DecodeError if neither decoder can read them. decord 0.6 cannot make frames of some small sizes
    (8, 12, 16, 24, 48 and 72 pixels), so there PyAV reads them all, which takes longer.
    """
    try:
        frames = _read_with_either(_address(file), size, choose, start, end)
    except DecodeError as error:
        raise DecodeError(str(file), error.reason) from None
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def read_times(
    file: str | ShardMember, choose: ChooseFrames, start: float | None = None, end: float | None = None
) -> np.ndarray:
    """When the frames that `read_video` reads are shown, (T,) in seconds from the video's first frame.

    DecodeError if the file does not say. Where it says more or fewer frames than decord finds, this is off by as much.
    """
    path = str(file)
    try:
        with av.open(_address(file)) as container:
            times = _frame_times(container)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DecodeError(path, f"PyAV: {_one_line(error)}") from None
    first, stop = part(path, times, start, end)
    return times[first + choose(stop - first)]


def seconds(file: str | ShardMember) -> float | None:
    """How long a video says it is; None where it says nothing, or nothing that can be. Errors as PyAV raises them."""
    with av.open(_address(file), metadata_errors="ignore") as container:
        if container.duration is None or container.duration <= 0:
            return None
        return container.duration / av.time_base


def _address(file: str | ShardMember) -> str:
    """What the decoders open. DecodeError if nothing is there."""
    path = str(file)
    if isinstance(file, ShardMember):
        _check_shard(file)
        size = file.size
    else:
        status = _status(path, path, "no such file")
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError(path, "not a file")
        size = status.st_size
    if not size:
        raise DecodeError(path, "the file is empty")
    if isinstance(file, ShardMember):
        return f"subfile,,start,{file.offset},end,{file.offset + file.size},,:{file.shard}"
    return path


def _status(path: str, named: str, missing: str) -> os.stat_result:
    """What the system says of a file; DecodeError of `named` if it says nothing, with `missing` if there is none."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        raise DecodeError(named, missing) from None
    except OSError as error:  # a name too long, a folder that may not be entered, storage that is gone
        raise DecodeError(named, _one_line(error)) from None


def _bytes_of(file: ShardMember) -> io.BytesIO:
    _check_shard(file)
    with open(file.shard, "rb") as shard:
        shard.seek(file.offset)
        return io.BytesIO(shard.read(file.size))


def _check_shard(file: ShardMember) -> None:
    """DecodeError unless the shard is as it was when its index was made: its members may lie elsewhere in another."""
    status = _status(file.shard, str(file), "no such shard")
    if (status.st_size, status.st_mtime_ns) != file.shard_state:
        raise DecodeError(str(file), "the shard has changed since it was indexed; start again to index it anew")


def part(path: str, times: np.ndarray, start: float | None, end: float | None) -> tuple[int, int]:
    """The first frame of the part from `start` to `end` and the one after its last, given all frames' times in seconds.

    It begins with the frame that is on screen at `start`, so it is never empty. DecodeError if the video is over then.
    """
    last_frame = times[-1] - times[-2] if len(times) > 1 else 0.0
    # Decoders round times to float32 or to ticks, so what is less than a millisecond apart is one moment.
    if start and start >= times[-1] + last_frame - 1e-3:
        raise DecodeError(path, f"start {start} s lies behind the last frame, which is at {times[-1]:.2f} s")
    first = max(int(np.searchsorted(times, (start or 0.0) + 1e-3, side="right")) - 1, 0)
    stop = len(times) if end is None else int(np.searchsorted(times, end - 1e-3, side="left"))
    return first, max(stop, first + 1)


def _read_with_either(path: str, size: int, choose: ChooseFrames, start: float | None, end: float | None) -> np.ndarray:
    """(T, size, size, 3) uint8. DecodeError if neither can."""
    try:
        return _read_with_decord(path, size, choose, start, end)
    # A UnicodeEncodeError is of a name that is not UTF-8.
    except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, UnicodeEncodeError) as first:
        try:
            return _read_with_pyav(path, size, choose, start, end)
        except (av.FFmpegError, OSError, ValueError) as second:
            raise DecodeError(path, f"decord: {_one_line(first)}; PyAV: {_one_line(second)}") from None


def _read_with_decord(path: str, size: int, choose: ChooseFrames, start: float | None, end: float | None) -> np.ndarray:
    """(T, size, size, 3) uint8. Errors as decord raises them; it gives up by itself (DECORD_EOF_RETRY_MAX, 10240)."""
    decord.logging.set_level(decord.logging.FATAL)
    reader = decord.VideoReader(path, width=size, height=size, num_threads=1)
    length = len(reader)
    if not length:
        raise RuntimeError("no frames")
    first, stop = 0, length
    if start is not None or end is not None:
        times = reader.get_frame_timestamp(np.arange(length))[:, 0]
        # Frames that the file gives no time (AVI) have a huge negative one.
        no_times = times[0] < -1e6
        times = np.arange(length) / reader.get_avg_fps() if no_times else times - times[0]
        first, stop = part(path, times, start, end)
    # It reads a frame once, however often it is wanted. `asnumpy` would copy; this takes over the memory as it is.
    return torch.from_dlpack(reader.get_batch(first + choose(stop - first)).to_dlpack()).numpy()


def _read_with_pyav(path: str, size: int, choose: ChooseFrames, start: float | None, end: float | None) -> np.ndarray:
    """(T, size, size, 3) uint8, decoded from the beginning of the file. Errors as PyAV raises them, and ValueError."""
    with av.open(path) as container:
        times = _frame_times(container)
    first, stop = part(path, times, start, end)
    return _decode(path, size, first + choose(stop - first))


def _video_stream(container: InputContainer) -> VideoStream:
    # What the container calls best, as decord does; the first may be a cover or a preview.
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise ValueError("no video stream")
    if stream.codec_context is None:
        raise ValueError("no decoder for its codec")
    return stream


def _frame_times(container: InputContainer) -> np.ndarray:
    """Seconds from the first frame of every frame, sorted: what the packets say, nothing is decoded."""
    stream = _video_stream(container)
    packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
    if not packets:
        raise ValueError("no frames")
    ticks = [packet.pts for packet in packets if packet.pts is not None]
    if len(ticks) == len(packets) and stream.time_base:
        return (np.sort(ticks) - min(ticks)) * float(stream.time_base)
    if not stream.average_rate:
        raise ValueError("neither times nor a frame rate")
    return np.arange(len(packets)) / float(stream.average_rate)


def _decode(path: str, size: int, wanted: np.ndarray) -> np.ndarray:
    """The frames of sorted indices, one thread, only those converted and resized, each once however often wanted."""
    frames = np.empty((len(wanted), size, size, 3), np.uint8)
    done, index = 0, -1
    # One for all frames, as each new one computes its tables anew. One thread: by default it starts some, and a forked
    # worker in which such an object is collected would wait for them for ever, as threads are not forked.
    reformatter = VideoReformatter()
    with av.open(path) as container:
        stream = _video_stream(container)
        stream.codec_context.thread_count = 1
        for index, frame in enumerate(container.decode(stream)):
            if index == wanted[done]:
                small = reformatter.reformat(frame, size, size, "rgb24", interpolation="BILINEAR", threads=1)
                same = int(np.searchsorted(wanted, index, side="right"))
                # Resized before it is turned, which is the same as both sides are equal.
                frames[done:same] = np.rot90(small.to_ndarray(), frame.rotation // 90)
                done = same
                if done == len(wanted):
                    return frames
    raise ValueError(f"ends after {index + 1} frames, before frame {wanted[done]}")


def _one_line(error: Exception) -> str:
    """What the error says, in one line of at most 200 characters.

    Left out are decord's time stamps and source files, and where in a shard the file begins.
    """
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: |subfile,,start,\d+,end,\d+,,:", "", str(error))
    return " ".join(text.split())[:200] or type(error).__name__
