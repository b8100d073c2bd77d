"""One video file into a small one, through PyAV; no ffmpeg program is needed."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from datasets.decode import DecodeError, frame_list
from datasets.transcoding.recipes import Recipe
from datasets.video.files import source_of
from datasets.video.reading import opened

CRF = 23
"""The quality: x264's default."""
LEAST = 0.9
"""A video of which less than this share can be decoded has failed; what is less damaged is kept and noted."""
TICKS = 90000
"""Time stamps a second where the frame rate is not constant."""

Frame = TypeVar("Frame")


@dataclass(frozen=True)
class Written:
    """What became of a video. `damaged` frames of the source could not be decoded, or not in full."""

    frames: int
    seconds: float
    width: int
    height: int
    damaged: int


@dataclass(frozen=True)
class Timeline:
    """When the frames of a file are shown.

    `first` is the time stamp of the first frame, None where the file gives none (AVI) and frames are `1 / rate` apart.
    In seconds from the first frame, the last one comes at `last` and is over at `end`.
    """

    first: int | None
    rate: Fraction
    last: float
    end: float


def transcode(source: Path, target: Path, recipe: Recipe, beat: Callable[[], None]) -> Written:
    """Write the video `source` to `target` as the recipe says; `beat` is called for every frame.

    av.FFmpegError or ValueError if the source cannot be read, or so much of it is damaged or missing that less than
    LEAST of it is left; `target` may then be half written.
    """
    timeline = _timeline(source, recipe.seconds, beat)
    with (
        opened(source_of(str(source))) as (container, stream),
        av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as output,
    ):
        decoder = _Decoder(container, stream, timeline, recipe.seconds)
        end = timeline.end if recipe.seconds is None else min(timeline.end, recipe.seconds)
        encoder = _Encoder(output, recipe, decoder.stream, end)
        for time, frame in resample(decoder.frames(), recipe.fps, end):
            beat()
            encoder.add(time, frame)
        decoder.check()
        encoder.finish()
    return Written(encoder.num_frames, round(end, 3), encoder.width, encoder.height, decoder.damaged)


def resample(
    frames: Iterable[tuple[float, Frame]], fps: float | None, end: float
) -> Iterator[tuple[float | int, Frame]]:
    """Frames at a constant rate: (tick, frame) for each tick 0, 1, ... until `end` seconds.

    Each frame of `frames`, sorted (seconds, frame), moves to the tick nearest to its time and stays until the next one
    comes; of several on one tick the last is taken. There is at least one. Without `fps` frames keep their times, and
    of several with the same time the first is taken.
    """
    if fps is None:
        last = -1.0
        for time, frame in frames:
            if time > last:
                last = time
                yield time, frame
        return

    tick = 0
    shown: list[Frame] = []
    for time, frame in frames:
        for earlier in range(tick, _nearest(time * fps)):
            # Before the first frame there is only the first frame to show.
            yield earlier, (shown or [frame])[0]
        tick = max(tick, _nearest(time * fps))
        shown = [frame]

    for later in range(tick, max(_nearest(end * fps), 1)):
        if shown:
            yield later, shown[0]


class _Decoder:
    """The frames of a file in the order they are shown, and how much of it is damaged."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, timeline: Timeline, seconds: float | None
    ) -> None:
        self.stream = stream
        self.damaged = 0
        self._container, self._timeline, self._seconds = container, timeline, seconds
        self._num_frames = 0
        self._last = 0.0

    def frames(self) -> Iterator[tuple[float, VideoFrame]]:
        """(seconds from the first frame, frame)."""
        for packet in self._container.demux(self.stream):
            try:
                decoded = packet.decode()
            except av.InvalidDataError:
                self.damaged += 1
                continue
            for frame in decoded:
                time = self._time(frame)
                if self._seconds is not None and time >= self._seconds - 1e-6:
                    return
                self.damaged += frame.is_corrupt
                self._num_frames += 1
                self._last = max(self._last, time)
                yield self._last, frame

    def check(self) -> None:
        """ValueError if too little of what should be there could be decoded."""
        last = self._timeline.last if self._seconds is None else min(self._timeline.last, self._seconds)
        if not self._num_frames:
            raise ValueError("not one frame can be decoded")
        if self.damaged > (1 - LEAST) * (self._num_frames + self.damaged):
            raise ValueError(f"{self.damaged} of {self._num_frames + self.damaged} frames are damaged")
        # Of very short videos the last frame alone is more than a tenth.
        if self._last < LEAST * last - 1.0:
            raise ValueError(f"can be decoded until {self._last:.1f} s of {last:.1f} s only")

    def _time(self, frame: VideoFrame) -> float:
        if self._timeline.first is None or frame.pts is None or frame.time_base is None:
            return float(self._num_frames / self._timeline.rate)
        return float((frame.pts - self._timeline.first) * frame.time_base)


class _Encoder:
    """An mp4 file with one stream of H.264, whose size the first frame decides."""

    def __init__(self, output: OutputContainer, recipe: Recipe, source: VideoStream, end: float) -> None:
        self.num_frames = self.width = self.height = 0
        self._output, self._recipe, self._source, self._end = output, recipe, source, end
        self._rate = source.average_rate or Fraction(30)
        if recipe.fps is not None:
            self._rate = Fraction(recipe.fps).limit_denominator(1001)
        self._time_base = Fraction(1, TICKS) if recipe.fps is None else 1 / self._rate
        self._reformatter = VideoReformatter()
        self._stream: VideoStream | None = None

    def add(self, time: float | int, frame: VideoFrame) -> None:
        """Append a frame, `time` in seconds or, at a constant rate, its number."""
        turned = frame.rotation % 180 != 0
        if self._stream is None:
            self._stream = self._open(frame, turned)

        # What the numbers mean (BT.601, BT.709) is passed on, so they are not converted; full range becomes limited.
        small = self._reformatter.reformat(
            frame,
            *((self.height, self.width) if turned else (self.width, self.height)),
            "yuv420p",
            interpolation="BICUBIC",
            src_color_range=frame.color_range,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        if frame.rotation:
            small = turn(small, frame.rotation // 90)

        small.pts = int(time) if self._recipe.fps is not None else round(time * TICKS)
        small.time_base = self._time_base
        small.pict_type = PictureType.NONE  # the encoder chooses its key frames itself
        self._output.mux(self._stream.encode(small))
        self.num_frames += 1

    def finish(self) -> None:
        """Write what the encoder still holds."""
        assert self._stream is not None
        packets = self._stream.encode()
        # The file ends with its last packet; what the last frame is held for would be lost without this.
        if packets and self._recipe.fps is None:
            last = packets[-1]
            last.duration = max(last.duration or 0, round(self._end * TICKS) - (last.pts or 0))
        self._output.mux(packets)

    def _open(self, frame: VideoFrame, turned: bool) -> VideoStream:
        shown = (frame.width * (self._source.sample_aspect_ratio or 1), frame.height)
        self.width, self.height = self._recipe.size(*(float(side) for side in (reversed(shown) if turned else shown)))
        stream = self._output.add_stream("libx264", rate=self._rate, options={"crf": str(CRF)})
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
        context = stream.codec_context
        context.time_base = self._time_base
        context.thread_count = 1
        context.color_range = ColorRange.MPEG
        context.colorspace, context.color_primaries = frame.colorspace, frame.color_primaries
        context.color_trc = frame.color_trc
        return stream


def _timeline(source: Path, seconds: float | None, beat: Callable[[], None]) -> Timeline:
    """ValueError if there are no frames, or the file ends before its own index says."""
    try:
        frames = frame_list(source_of(str(source)), beat, quiet=True)
    except DecodeError as error:
        raise ValueError(error.reason) from None
    with opened(source_of(str(source))) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate or Fraction(30)
        # The index of an mp4 counts all samples, those too that an edit list hides.
        indexed = stream.frames if "mp4" in container.format.name else 0
    there = max(len(frames), len(frames.sizes))
    if there < LEAST * indexed and (seconds is None or frames.times[-1] < seconds):
        raise ValueError(f"the file is cut off: {there} of {indexed} frames are there")
    return Timeline(frames.first_stamp, rate, float(frames.times[-1]), frames.length)


def turn(frame: VideoFrame, quarters: int) -> VideoFrame:
    """A yuv420p frame of even sides turned anticlockwise by quarters of a circle."""
    height, width = frame.height, frame.width
    planes = np.split(frame.to_ndarray().ravel(), [height * width, height * width * 5 // 4])
    shapes = [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
    turned = [np.rot90(plane.reshape(shape), quarters) for plane, shape in zip(planes, shapes, strict=True)]
    flat = np.concatenate([plane.ravel() for plane in turned])
    return VideoFrame.from_ndarray(flat.reshape(-1, turned[0].shape[1]), format="yuv420p")


def _nearest(ticks: float) -> int:
    """Rounded half up, as 0.5 away from both neighbours must not depend on whether they are even."""
    return int(np.floor(ticks + 0.5 + 1e-9))
