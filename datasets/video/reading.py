"""Read frames of a video by index: by seeking if the frame list allows it, else by decoding in order."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
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
REFUSALS_KEPT = 10_000


class NotAsListed(Exception):
    """The file does not give the frames that its list promises; it has to be listed by decoding."""


class Undecodable(NotAsListed):
    """A packet cannot be decoded; elsewhere in the file, the list may hold."""


class ListCache:
    """Caches the frame lists of recently read files, by address and state; safe to use from several threads."""

    def __init__(self, most: int = CACHED_PACKETS) -> None:
        self._lists: OrderedDict[Source, FrameList] = OrderedDict()
        self._most, self._held = most, 0
        self._refused: OrderedDict[Source, str] = OrderedDict()
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

    def refuse(self, source: Source, reason: str) -> None:
        """Remember why a file in this state cannot be listed by decoding, which may have taken long."""
        with self._lock:
            self._refused[source] = reason
            while len(self._refused) > REFUSALS_KEPT:
                self._refused.popitem(last=False)

    def refusal(self, source: Source) -> str | None:
        """Why a file in this state cannot be listed by decoding; None if nobody has tried it in vain."""
        return self._refused.get(source)

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
    container: InputContainer,
    stream: VideoStream,
    frames: FrameList,
    wanted: np.ndarray,
    beat: Callable[[], None] = lambda: None,
) -> Iterator[VideoFrame]:
    """The frames of the sorted, distinct indices `wanted`. NotAsListed if the file does not match the list.

    Without time stamps in the list, the container must be at its beginning. `beat` is called for each decoded frame.
    """
    if frames.stamps is not None:
        seeker = _Seeker(container, stream, frames, wanted, beat)
        for place in range(len(wanted)):
            yield seeker.frame(place)
        return

    # Time stamps do not identify the frames: count them from the beginning.
    remaining = iter(wanted.tolist())
    index = next(remaining)
    for number, frame in enumerate(decode_in_order(container, stream)):
        beat()
        if number == index:
            yield frame
            index = next(remaining, None)
            if index is None:
                return
    raise NotAsListed(f"ends before frame {index}")


class _Seeker:
    """Finds frames by their time stamps.

    To get a frame, it seeks to a key frame before it and decodes from there. Where a key frame lies between two wanted
    frames (sparse reading), it does not decode what is before it; where none does (dense reading), it goes on in one
    pass. Either way it leaves out pictures that are not wanted and that no other picture refers to. It checks every
    packet and frame on the way against the list, since a seek may end in the wrong place.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        frames: FrameList,
        wanted: np.ndarray,
        beat: Callable[[], None],
    ) -> None:
        assert frames.stamps is not None
        self._container, self._stream, self._frames, self._stamps = container, stream, frames, frames.stamps
        self._wanted, self._beat = wanted, beat
        self._start_stamps = frames.packet_stamps[frames.starts]
        self._packets: Iterator[av.Packet] = iter(())
        self._position: int | None = None  # position in the list of the next packet to decode
        self._pending: deque[tuple[int, VideoFrame]] = deque()
        self._begin = 0  # time stamp of the key frame of the last seek
        self._next = 0  # index of the next frame out of the decoder

        # The frame of each packet, -1 if none is shown; and which packets need not be decoded.
        frame = np.searchsorted(frames.stamps, frames.packet_stamps).clip(max=len(frames) - 1)
        self._frame_of_packet = np.where(frames.stamps[frame] == frames.packet_stamps, frame, -1)
        is_wanted = np.isin(self._frame_of_packet, wanted)
        self._left_out = frames.disposable & ~is_wanted & (self._frame_of_packet >= 0)
        self._not_decoded = np.zeros(len(frames), bool)  # frames that will not come, since the last seek

        # Where each wanted frame's own packet is, and the key frame from which its decoding begins.
        by_stamp = np.argsort(frames.packet_stamps, kind="stable")
        places = np.searchsorted(frames.packet_stamps, frames.stamps[wanted], sorter=by_stamp)
        self._packet_of_wanted = by_stamp[places]
        self._start_of_wanted = self._starts_before(frames.stamps[wanted])

    def frame(self, place: int) -> VideoFrame:
        """The wanted frame at this place, which must be the first or follow that of the previous call."""
        stamp, start = int(self._stamps[self._wanted[place]]), int(self._start_of_wanted[place])
        if start < 0:
            raise NotAsListed("a frame comes before the first key frame")

        # Continue decoding from the current position, unless a seek gets us closer to the frame.
        if self._position is None or self._frames.starts[start] > self._position:
            self._seek(start)
        last_packet = int(self._packet_of_wanted[place]) if self._is_followed_by_a_seek(place) else None
        found = self._decode_until(stamp, last_packet)

        # The frame may depend on an earlier key frame: try the one before, then the first.
        for earlier in (max(start - 1, 0), 0):
            if found is not None:
                break
            self._seek(earlier)
            found = self._decode_until(stamp)
        if found is None:
            raise NotAsListed(f"frame {self._wanted[place]} does not come")
        return found

    def _starts_before(self, stamps: np.ndarray) -> np.ndarray:
        """The last start at or before each time stamp, in decoding order; -1 if there is none.

        Leading pictures are shown before their key frame but decoded after it, so theirs is the key frame before them.
        """
        # Starts are in the order of decoding, and so are their time stamps in all but odd files.
        latest = np.maximum.accumulate(np.argsort(self._start_stamps, kind="stable"))
        places = np.searchsorted(np.sort(self._start_stamps), stamps, side="right") - 1
        return np.where(places < 0, -1, latest[places])

    def _is_followed_by_a_seek(self, place: int) -> bool:
        """Whether nothing that follows this wanted frame in the decoder is wanted, so that it may be emptied."""
        if self._frames.decoded:
            return False
        if place + 1 == len(self._wanted):
            return True
        return bool(self._frames.starts[self._start_of_wanted[place + 1]] > self._packet_of_wanted[place] + 1)

    def _seek(self, start: int) -> None:
        """Seek to a key frame at or before this start."""
        self._pending.clear()
        self._not_decoded.fill(False)
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

    def _decode_until(self, stamp: int, last_packet: int | None = None) -> VideoFrame | None:
        """Decode until the frame with this time stamp; None if a later frame or the end comes first.

        After `last_packet`, that of the frame itself, the decoder is made to give what it holds back to sort it: then a
        seek has to follow.
        """
        while True:
            while self._pending:
                next_stamp, frame = self._pending[0]
                if next_stamp > stamp:
                    return None
                self._pending.popleft()
                if next_stamp == stamp:
                    return frame

            if last_packet is not None and self._position is not None and self._position > last_packet:
                self._empty_decoder()
                last_packet = None
                continue

            packet = next(self._packets, None)
            if packet is None:
                return None
            position = self._check_packet(packet)
            if position is not None and self._left_out[position]:
                self._not_decoded[self._frame_of_packet[position]] = True
                continue
            self._decode(packet)

    def _decode(self, packet: av.Packet | None) -> None:
        """Decode a packet, or with None what the decoder holds back."""
        try:
            decoded = self._stream.codec_context.decode(None) if packet is None else packet.decode()
        except av.FFmpegError as error:
            raise Undecodable(f"a packet cannot be decoded ({error})") from None
        for frame in decoded:
            assert isinstance(frame, VideoFrame)
            self._beat()
            self._check_frame(frame)

    def _empty_decoder(self) -> None:
        """Take all frames out of the decoder, and end reading here."""
        assert self._position is not None
        undecoded = self._frame_of_packet[self._position :]
        self._not_decoded[undecoded[undecoded >= 0]] = True
        self._position, self._packets = None, iter(())
        self._decode(None)

    def _check_packet(self, packet: av.Packet) -> int | None:
        """The position of a packet in the list; None for the end of the file. NotAsListed if it is another one."""
        if not packet.size:  # an empty packet empties the decoder
            return None
        position = self._position
        assert position is not None
        listed = position < len(self._frames.sizes)
        if not listed or (packet.pts, packet.size) != (
            self._frames.packet_stamps[position],
            self._frames.sizes[position],
        ):
            raise NotAsListed("packets are others after a seek")
        self._position = position + 1
        return position

    def _check_frame(self, frame: VideoFrame) -> None:
        """Keep a decoded frame. NotAsListed unless it is the next one in the list of those that were decoded."""
        stamps = self._stamps
        if frame.pts is None:
            raise NotAsListed("a frame has no time")
        if frame.pts < self._begin:
            return  # a leading picture, which refers to frames before the key frame that were not decoded
        while self._next < len(stamps) and self._not_decoded[self._next]:
            self._next += 1
        if self._next == len(stamps) or stamps[self._next] != frame.pts:
            raise NotAsListed("other frames come than are listed")
        self._next += 1
        self._pending.append((frame.pts, frame))


def _after(first: av.Packet, rest: Iterator[av.Packet]) -> Iterator[av.Packet]:
    yield first
    yield from rest
