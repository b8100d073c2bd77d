"""Read frames of a video by index: by seeking if the frame list allows it, else by decoding in order."""

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from datasets.video.files import Source
from datasets.video.frame_list import FrameList, decode_in_order, video_stream

CACHED_PACKETS = 2_000_000
"""How many packets and frames, over all its lists, a process keeps: about 60 MB."""


class NotAsListed(Exception):
    """The file does not give the frames that its list promises; it has to be listed by decoding."""


class ListCache:
    """Caches the frame lists of recently read files, by address and state; safe to use from several threads."""

    def __init__(self, most: int = CACHED_PACKETS) -> None:
        self._lists: OrderedDict[Source, FrameList] = OrderedDict()
        self._most, self._held = most, 0
        self._lock = threading.Lock()

    def get(self, source: Source) -> FrameList | None:
        """The list of a file in this state; None if it is not cached."""
        with self._lock:
            found = self._lists.get(source)
            if found is not None:
                self._lists.move_to_end(source)
            return found

    def put(self, source: Source, frames: FrameList) -> None:
        """Cache a list, and drop the least recently used ones."""
        with self._lock:
            self._drop(source)
            self._lists[source] = frames
            self._held += _weight(frames)
            while self._held > self._most and len(self._lists) > 1:
                self._drop(next(iter(self._lists)))

    def _drop(self, source: Source) -> None:
        dropped = self._lists.pop(source, None)
        if dropped is not None:
            self._held -= _weight(dropped)


def _weight(frames: FrameList) -> int:
    return len(frames) + len(frames.sizes)


@contextmanager
def opened(source: Source) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the file and its video stream. Raises PyAV's errors, and ValueError if there is no video."""
    # We do not need metadata, and old cameras write them in unknown encodings.
    with av.open(source.address, metadata_errors="ignore") as container:
        yield container, video_stream(container)


def frames_at(
    container: InputContainer, stream: VideoStream, frames: FrameList, wanted: np.ndarray
) -> Iterator[VideoFrame]:
    """The frames of the sorted, distinct indices `wanted`. NotAsListed if the file does not match the list.

    Without time stamps in the list, the container must be at its beginning.
    """
    if frames.stamps is not None:
        seeker = _Seeker(container, stream, frames)
        for index in wanted:
            yield seeker.frame(int(index))
        return

    # Time stamps do not identify the frames: count them from the beginning.
    remaining = iter(wanted.tolist())
    index = next(remaining)
    for number, frame in enumerate(decode_in_order(container, stream)):
        if number == index:
            yield frame
            index = next(remaining, None)
            if index is None:
                return
    raise NotAsListed(f"ends before frame {index}")


class _Seeker:
    """Finds frames by their time stamps.

    To get a frame, it seeks to a key frame before it and decodes from there. It checks every packet and frame on the
    way against the list, since a seek may end in the wrong place.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, frames: FrameList) -> None:
        assert frames.stamps is not None
        self._container, self._stream, self._frames, self._stamps = container, stream, frames, frames.stamps
        self._start_stamps = frames.packet_stamps[frames.starts]
        self._packets: Iterator[av.Packet] = iter(())
        self._position: int | None = None  # position in the list of the next packet to decode
        self._pending: deque[tuple[int, VideoFrame]] = deque()
        self._begin = 0  # time stamp of the key frame of the last seek
        self._next = 0  # index of the next frame out of the decoder

    def frame(self, index: int) -> VideoFrame:
        """The frame with this index, which must not be smaller than in the previous call."""
        stamp = int(self._stamps[index])
        # Leading pictures are shown before their key frame but decoded after it, so start at the key frame before them.
        before = np.flatnonzero(self._start_stamps <= stamp)
        if not len(before):
            raise NotAsListed("a frame comes before the first key frame")
        start = int(before[-1])

        # Continue decoding from the current position, unless a seek gets us closer to the frame.
        if self._position is None or self._frames.starts[start] > self._position:
            self._seek(start)
        found = self._decode_until(stamp)

        # The frame may depend on an earlier key frame: try the one before, then the first.
        for earlier in (max(start - 1, 0), 0):
            if found is not None:
                break
            self._seek(earlier)
            found = self._decode_until(stamp)
        if found is None:
            raise NotAsListed(f"frame {index} does not come")
        return found

    def _seek(self, start: int) -> None:
        """Seek to a key frame at or before this start."""
        self._pending.clear()
        limit = int(self._frames.starts[start])
        step, target = 1, start
        while True:
            self._container.seek(int(self._start_stamps[target]), stream=self._stream)
            self._packets = self._container.demux(self._stream)
            position = self._first_start(limit)
            if position is not None:
                self._position = position
                return
            if not target:
                raise NotAsListed("no key frame can be reached")
            # The seek went too far, for example because the container indexes only some key frames: aim further back.
            target, step = max(target - step, 0), 2 * step

    def _first_start(self, limit: int) -> int | None:
        """Read up to the first start, whose packet is decoded next; its position, or None if that is after `limit`."""
        for packet in self._packets:
            if packet.pts is None or not packet.is_keyframe:
                continue
            for position in self._frames.starts[self._start_stamps == packet.pts]:
                if position > limit:
                    return None
                if packet.size == self._frames.sizes[position]:
                    self._packets = _after(packet, self._packets)
                    self._next = int(np.searchsorted(self._stamps, packet.pts))
                    self._begin = packet.pts
                    return int(position)
        return None

    def _decode_until(self, stamp: int) -> VideoFrame | None:
        """Decode until the frame with this time stamp; None if a later frame or the end comes first."""
        while True:
            while self._pending:
                next_stamp, frame = self._pending[0]
                if next_stamp > stamp:
                    return None
                self._pending.popleft()
                if next_stamp == stamp:
                    return frame

            packet = next(self._packets, None)
            if packet is None:
                return None
            self._check_packet(packet)
            try:
                decoded = packet.decode()
            except av.FFmpegError as error:
                raise NotAsListed(f"a packet cannot be decoded ({error})") from None
            for frame in decoded:
                self._check_frame(frame)

    def _check_packet(self, packet: av.Packet) -> None:
        if not packet.size:  # the end of the file: an empty packet flushes the decoder
            return
        position = self._position
        assert position is not None
        listed = position < len(self._frames.sizes)
        if not listed or (packet.pts, packet.size) != (
            self._frames.packet_stamps[position],
            self._frames.sizes[position],
        ):
            raise NotAsListed("packets are others after a seek")
        self._position = position + 1

    def _check_frame(self, frame: VideoFrame) -> None:
        """Keep a decoded frame. NotAsListed unless it is the next one in the list."""
        stamps = self._stamps
        if frame.pts is None:
            raise NotAsListed("a frame has no time")
        if frame.pts < self._begin:
            return  # a leading picture, which refers to frames before the key frame that were not decoded
        if self._next == len(stamps) or stamps[self._next] != frame.pts:
            raise NotAsListed("other frames come than are listed")
        self._next += 1
        self._pending.append((frame.pts, frame))


def _after(first: av.Packet, rest: Iterator[av.Packet]) -> Iterator[av.Packet]:
    yield first
    yield from rest
