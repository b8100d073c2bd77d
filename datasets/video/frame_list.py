"""Which frames a video has and when they are shown: from its packets if possible, else by decoding it once.

The frames of a file are the frames that FFmpeg returns, in order, when it decodes the best video stream from the
beginning. Listing packets costs a fraction of decoding them, but only in some containers is each packet one frame.
`FrameList.reason` says how the list was made.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from datasets.video import bitstream
from datasets.video.references import References

STAMPED_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv")
"""Containers that store the time and the boundaries of every packet."""
LISTED_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "mjpeg", "prores")
"""Codecs for which `bitstream.one_picture` knows how many frames a packet gives."""
MOST_DAMAGED = 0.02
"""A video is refused if a larger share of its frames is damaged, or cannot be decoded; one always may."""


@dataclass(frozen=True)
class FrameList:
    """The frames of a video.

    `times` (N,) are seconds from the first frame; the last frame is shown until `length` seconds. `stamps` (N,) are the
    time stamps of the frames in ticks; None if they do not identify the frames, which then have to be counted. `sizes`
    and `packet_stamps` (P,) identify the packets, in decoding order; `starts` are the positions of packets at which
    decoding may begin, and `disposable` (P,) says which packets hold a picture that no other refers to. `reason` says
    in words how the list was made. `first_stamp` is the time stamp of the first frame; None if the times follow from
    the frame rate.
    """

    times: np.ndarray
    length: float
    decoded: bool
    reason: str
    stamps: np.ndarray | None = None
    packet_stamps: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    sizes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    starts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    disposable: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    first_stamp: int | None = None

    def __len__(self) -> int:
        return len(self.times)

    def counted(self, doubt: str) -> "FrameList":
        """The same list for a reader that has to count frames, because time stamps do not identify them."""
        return FrameList(self.times, self.length, self.decoded, f"{self.reason}; {doubt}", first_stamp=self.first_stamp)

    def with_all_decoded(self) -> "FrameList":
        """The same list for a reader that leaves out no picture between those that are wanted."""
        return replace(self, disposable=np.zeros_like(self.disposable))

    def part(self, start: float | None, end: float | None) -> tuple[int, int]:
        """The index of the first frame from `start` to `end` seconds, and the index after the last.

        The part begins with the frame that is on screen at `start`, so it is never empty. ValueError if the video ends
        before `start`.
        """
        # Times are rounded to ticks, so times less than a millisecond apart count as equal.
        if start and start >= max(self.length, self.times[-1]) - 1e-3:
            raise ValueError(f"start {start} s lies behind the end of the video, which is {self.length:.2f} s long")
        first = max(int(np.searchsorted(self.times, (start or 0.0) + 1e-3, side="right")) - 1, 0)
        stop = len(self) if end is None else int(np.searchsorted(self.times, end - 1e-3, side="left"))
        return first, max(stop, first + 1)


@dataclass
class _Packets:
    """What we know of the packets, in decoding order; `shown` is None if the packet does not tell."""

    stream: VideoStream
    stamps: list[int | None] = field(default_factory=list)
    decode_stamps: list[int | None] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    discarded: list[bool] = field(default_factory=list)
    shown: list[bool | None] = field(default_factory=list)
    end: int = 0
    doubt: str = ""

    def __post_init__(self) -> None:
        self.codec, self.extradata = self.stream.codec_context.name, self.stream.codec_context.extradata
        self.references = References(self.codec, self.extradata)

    def add(self, packet: av.Packet) -> None:
        """Add a packet that is not empty."""
        codec, extradata = self.codec, self.extradata
        position = len(self.stamps)
        self.stamps.append(packet.pts)
        self.decode_stamps.append(packet.dts)
        self.sizes.append(packet.size)
        self.discarded.append(packet.is_discard)
        if packet.pts is not None and not packet.is_discard:
            self.end = max(self.end, packet.pts + (packet.duration or 0))

        if packet.is_corrupt:
            self.doubt = self.doubt or "a packet is damaged"
        if position == 0 and not packet.is_keyframe:
            self.doubt = "it begins within a group of pictures"

        self.references.add(packet)

        # Copying the bytes of every packet is slow: look only at those that may tell something.
        needs_bytes = packet.is_keyframe or codec in ("vp8", "vp9", "mpeg4")
        if not needs_bytes:
            self.shown.append(True)
            return
        data = bytes(packet)
        self.shown.append(bitstream.one_picture(codec, data))
        if not packet.is_keyframe:
            return

        if bitstream.starts_clean(codec, data, extradata):
            self.starts.append(position)
        if position == 0 and bitstream.may_code_fields(codec, data, extradata):
            self.doubt = self.doubt or "a packet may hold one field of a frame"
        if position and bitstream.breaks_link(codec, data, extradata):
            self.doubt = self.doubt or "it was spliced, and pictures at the joints are not shown"


def video_stream(container: InputContainer) -> VideoStream:
    """The container's best video stream. ValueError if it has none that can be decoded."""
    # The first stream may be a preview. In a file with sound only, the best one is the picture of the cover.
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        raise ValueError("no video stream")
    if stream.codec_context is None:
        raise ValueError("no decoder for its codec")
    # By default FFmpeg starts threads. A forked worker does not inherit them and would wait for them forever.
    stream.codec_context.thread_count = 1
    return stream


def from_packets(container: InputContainer, stream: VideoStream) -> FrameList | str:
    """List the frames without decoding, or return why that is impossible. The container must be at its beginning."""
    codec = stream.codec_context.name
    if container.format.name not in STAMPED_CONTAINERS:
        return f"{container.format.name} does not store the time of every frame"
    if codec not in LISTED_CODECS:
        return f"packets of {codec} do not tell how many frames they hold"

    packets = _Packets(stream)
    for packet in container.demux(stream):
        if packet.size:
            packets.add(packet)
    doubt = packets.doubt or _doubt(packets)
    if doubt:
        return doubt

    # Packets come in decoding order; frames are shown in the order of their time stamps.
    stamps = [
        stamp
        for stamp, is_discarded, is_shown in zip(packets.stamps, packets.discarded, packets.shown, strict=True)
        if stamp is not None and is_shown and not is_discarded
    ]
    reason = f"every packet of {codec} in {container.format.name} is a frame with a time of its own"
    return _assemble(container, stream, packets, sorted(stamps), decoded=False, reason=reason)


def by_decoding(
    container: InputContainer, stream: VideoStream, doubt: str, beat: Callable[[], None] = lambda: None
) -> FrameList:
    """List the frames by decoding the whole container from its beginning; `beat` is called for each frame.

    ValueError if there is no frame, or too much is damaged.
    """
    packets, stamps = _Packets(stream), []
    for frame in decode_in_order(container, stream, packets.add):
        beat()
        stamps.append(frame.pts)
        if frame.pts is not None:
            packets.end = max(packets.end, frame.pts + (frame.duration or 0))
    return _assemble(container, stream, packets, stamps, decoded=True, reason=f"decoded to list its frames: {doubt}")


def decode_in_order(
    container: InputContainer, stream: VideoStream, note: Callable[[av.Packet], None] = lambda packet: None
) -> Iterator[VideoFrame]:
    """Decode all frames from the beginning, calling `note` for each packet; skip frames that cannot be decoded.

    ValueError at the end if too much was damaged.
    """
    packets = shown = damaged = 0
    for packet in container.demux(stream):
        if packet.size:
            packets += 1
            note(packet)
        try:
            frames = packet.decode()
        except av.FFmpegError:
            damaged += 1
            continue

        for frame in frames:
            shown += 1
            damaged += frame.is_corrupt
            yield frame

    if not shown:
        raise ValueError("no frames")
    if damaged > max(1, MOST_DAMAGED * packets):
        raise ValueError(f"{damaged} of its {packets} frames are damaged")


def _doubt(packets: _Packets) -> str:
    """Why the packets do not tell which frames are shown; empty if they do."""
    if not packets.stamps:
        return "it has no packets"
    stamps = [stamp for stamp in packets.stamps if stamp is not None]
    if len(set(stamps)) < len(packets.stamps):
        return "times are missing or repeated"
    if None in packets.shown:
        return "packets hold more frames than one, or none"

    # An edit list may discard frames at the beginning or the end, but not between others.
    shown = np.array([s for s, off in zip(stamps, packets.discarded, strict=True) if not off], np.int64)
    hidden = np.array([s for s, off in zip(stamps, packets.discarded, strict=True) if off], np.int64)
    if not len(shown):
        return "no frame is shown"
    if len(hidden) and ((hidden > shown.min()) & (hidden < shown.max())).any():
        return "frames are discarded between others"

    # With B-frames, MPEG-4 holds a frame back until the next one comes; the end then differs from file to file.
    if packets.codec == "mpeg4" and stamps != sorted(stamps):
        return "it has B-frames of MPEG-4"
    if 0 not in packets.starts:
        return "its first frames may refer to earlier ones"
    # Leading pictures of the first key frame refer to frames that do not exist.
    if (shown < stamps[0]).any():
        return "it begins with pictures that refer to earlier ones"
    return ""


def _assemble(
    container: InputContainer,
    stream: VideoStream,
    packets: _Packets,
    stamps: Sequence[int | None],
    decoded: bool,
    reason: str,
) -> FrameList:
    known = [stamp for stamp in stamps if stamp is not None]
    ticks = np.array(known, np.int64)

    # Without a usable time for every frame, spread the frames evenly by the frame rate.
    if stream.time_base is None or len(known) < len(stamps) or (np.diff(ticks) <= 0).any():
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise ValueError("neither times nor a frame rate")
        times = np.arange(len(stamps)) / float(rate)
        return FrameList(times, len(stamps) / float(rate), decoded, f"{reason}; times follow from the frame rate")

    time_base = float(stream.time_base)
    times = (ticks - ticks[0]) * time_base
    length = max((packets.end - known[0]) * time_base, *_track_ends(container, stream, known[0] * time_base))

    # A reader may seek only if time stamps identify the packets, and stay the same after a seek.
    packet_stamps = [stamp for stamp in packets.stamps if stamp is not None]
    is_unique = len(set(packet_stamps)) == len(packets.stamps) and set(known) <= set(packet_stamps)
    if not (is_unique and packets.starts and _times_are_stored(container, packets)):
        return FrameList(times, length, decoded, reason, first_stamp=known[0])
    starts = np.array(packets.starts, np.int64)
    return FrameList(
        times,
        length,
        decoded,
        reason,
        ticks,
        np.array(packet_stamps, np.int64),
        np.array(packets.sizes, np.int64),
        starts,
        # A list made by decoding is that of a file whose packets are not one frame each.
        packets.references.disposable(starts) & (not decoded),
        known[0],
    )


def _track_ends(container: InputContainer, stream: VideoStream, first: float) -> Iterator[float]:
    """The ends that the stream and the container state, in seconds after the first frame, which is at `first`."""
    yield 0.0
    if stream.duration and stream.time_base:
        yield ((stream.start_time or 0) + stream.duration) * float(stream.time_base) - first
    if container.duration and container.duration > 0:
        # For Matroska the duration is the time of the end; for others it counts from the start time.
        is_end = container.format.name == "matroska,webm"
        begin = 0 if is_end else container.start_time or 0
        yield (begin + container.duration) / av.time_base - first


def _times_are_stored(container: InputContainer, packets: _Packets) -> bool:
    """Whether a packet has the same time stamp after a seek; AVI stores only the decoding order."""
    return container.format.name != "avi" or packets.stamps == packets.decode_stamps
