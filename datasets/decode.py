"""Frames out of video files, and images: the one door through which the project reads them.

The frames of a video are those that FFmpeg returns when its best video stream is decoded from the beginning with
default options, in that order. `datasets.video` finds any of them without decoding all the others, or says why it
cannot. Files are opened where they are used and closed before the call ends, so nothing is shared with a forked worker
and nothing piles up. A file may be a part of a tar file: FFmpeg's `subfile` protocol shows that part as a file of its
own, and nothing is copied. A file may be an address: it is fetched, and read like any other.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.images import is_animated_webp, is_still, read_image
from datasets.records import ShardMember
from datasets.remote.fetch import CachedFile
from datasets.sampling import ByTime
from datasets.video.animation import animation_still, list_animation, read_animation
from datasets.video.files import DecodeError, LocalFile, Source, at_hand, one_line, source_of, warn_once
from datasets.video.frame_list import FrameList, by_decoding, from_packets
from datasets.video.parts import parts_to_read, run_side_by_side
from datasets.video.pixels import Shrinker
from datasets.video.reading import ListCache, NotAsListed, Undecodable, frames_at, opened

__all__ = [
    "Beat",
    "ChooseFrames",
    "DecodeError",
    "Part",
    "Reading",
    "is_still",
    "read",
    "read_image",
    "read_parts",
    "read_still",
    "read_times",
    "read_video",
    "seconds",
]

ChooseFrames = Callable[[int], np.ndarray] | ByTime
"""From a number of frames to the sorted indices of those wanted, repeats allowed; the same whenever it is asked.

Or the same from the frames' times.
"""
Beat = Callable[[int, int], None]
"""Called for each decoded frame with how many of the wanted frames are read, and how many are wanted.

While a file is decoded to list its frames, none are known to be wanted. It may be called from several threads.
"""
Square = Callable[[Tensor], Tensor]
"""From an upright frame, uint8 (3, H, W) of the video's own size, to its square (3, size, size)."""
FRAME_LISTS = ListCache()


class Reading(NamedTuple):
    """Frames of a video and how they were read.

    `frames` (T, size, size, 3) uint8 are those of the `indices` (T,), shown at `times` (T,) in seconds from the first
    frame of the video; `length` frames were to choose from. `reader` and `reason` say in words which way was taken.
    """

    frames: np.ndarray
    indices: np.ndarray
    times: np.ndarray
    reader: str
    reason: str


class Part(NamedTuple):
    """Which frames are wanted of a video, between `start` and `end` in seconds from its first frame."""

    choose: ChooseFrames
    start: float | None = None
    end: float | None = None


def read_video(
    file: str | ShardMember,
    size: int,
    choose: ChooseFrames,
    start: float | None = None,
    end: float | None = None,
    square: Square | None = None,
) -> Tensor:
    """Read chosen frames of a video as squares: uint8 (T, 3, size, size), a view of (T, size, size, 3).

    `square` makes them of whole frames, one after the other; by default FFmpeg squashes them while it decodes.

    The pixels lie as the decoder wrote them; whoever needs them in another order copies them once, to where they go.
    `choose` gets the number of frames between `start` and `end` (seconds from the first frame; by default all) and
    says which to take. DecodeError if the file cannot be read, or is over at `start`.
    """
    return torch.from_numpy(read(file, size, choose, start, end, square).frames).permute(0, 3, 1, 2)


def read(
    file: str | ShardMember,
    size: int,
    choose: ChooseFrames,
    start: float | None = None,
    end: float | None = None,
    square: Square | None = None,
    beat: Beat | None = None,
) -> Reading:
    """Read as `read_video` does, and tell which frames were read and how; `beat` tells how far it is."""
    return read_parts(file, size, [Part(choose, start, end)], square, beat)[0]


def read_parts(
    file: str | ShardMember,
    size: int,
    parts: Sequence[Part],
    square: Square | None = None,
    beat: Beat | None = None,
) -> list[Reading]:
    """Read several parts of a video in one pass, which may overlap: each frame is decoded and resized once.

    Each part is as `read` would give it. DecodeError if the file cannot be read, or is over where a part starts.
    """
    with _local(file) as local:
        if is_animated_webp(local):
            return [_read_animation(local, size, part, square) for part in parts]
        return _read(source_of(local), size, parts, square, beat or _silent)


def read_times(
    file: str | ShardMember, choose: ChooseFrames, start: float | None = None, end: float | None = None
) -> np.ndarray:
    """When the frames that `read_video` reads are shown, (T,) in seconds from the video's first frame.

    DecodeError if the file cannot be read, or is over at `start`.
    """
    with _local(file) as local:
        frames = list_animation(local) if is_animated_webp(local) else frame_list(source_of(local))
        first, stop = frames.part(start, end)
    return frames.times[_chosen(choose, frames, first, stop)]


def seconds(file: LocalFile) -> float | None:
    """How long a video says it is; None where it says nothing, or nothing that can be. Errors as PyAV raises them."""
    with at_hand(file) as local:
        if is_animated_webp(local):
            return list_animation(local).length
        with av.open(source_of(local).address, metadata_errors="ignore") as container:
            if container.duration is None or container.duration <= 0:
                return None
            return container.duration / av.time_base


def duration(file: str | ShardMember) -> float:
    """How long a video is, in seconds: what it says, else when its last frame is shown. DecodeError if unreadable."""
    with _local(file) as local:
        listed = seconds(local)
        return float(frame_list(source_of(local)).times[-1]) if listed is None else listed


def read_still(file: str | ShardMember, second: float) -> Image.Image:
    """The frame on screen `second` after the first one, upright and of square pixels; the last one if it is over.

    DecodeError if the file cannot be read.
    """
    with _local(file) as local:
        if is_animated_webp(local):
            return animation_still(local, second)
        source = source_of(local)
        frames = frame_list(source)
        first, _ = frames.part(min(second, float(frames.times[-1])), None)
        with opened(source) as (container, stream):
            frame = next(frames_at(container, stream, frames, np.array([first])))
            width = round(frame.width * (stream.sample_aspect_ratio or 1))
            return Image.fromarray(Shrinker(source.name, width, frame.height).shrink(frame))


def frame_list(source: Source, beat: Callable[[], None] = lambda: None, quiet: bool = False) -> FrameList:
    """The frames of a video, from memory if it was listed before.

    If all has to be decoded, `beat` is called for each frame, and a warning says so unless `quiet`. Errors as PyAV
    raises them, and ValueError.
    """
    found = FRAME_LISTS.get(source)
    if found is None:
        with opened(source) as (container, stream):
            listed = from_packets(container, stream)
        found = _list_by_decoding(source, listed, beat, quiet) if isinstance(listed, str) else listed
        FRAME_LISTS.put(source, found)
    return found


@contextmanager
def _local(file: str | ShardMember) -> Iterator[LocalFile]:
    """The file on this machine; turns what PyAV and our own reader raise into a DecodeError."""
    with at_hand(file) as local:
        try:
            yield local
        except (av.FFmpegError, OSError) as error:
            raise DecodeError(str(local), f"PyAV: {_of_file(one_line(error), local)}") from None
        except ValueError as error:
            raise DecodeError(str(local), one_line(error)) from None


def _of_file(message: str, local: LocalFile) -> str:
    """A message of FFmpeg with the name of a fetched file in place of its place in the cache."""
    return message.replace(local.path, local.name) if isinstance(local, CachedFile) else message


def _silent(read: int, wanted: int) -> None:
    """Tell nobody."""


def _read(source: Source, size: int, parts: Sequence[Part], square: Square | None, beat: Beat) -> list[Reading]:
    frames = frame_list(source, partial(beat, 0, 0))
    while True:
        bounds = [frames.part(part.start, part.end) for part in parts]
        each = [_chosen(part.choose, frames, *bound) for part, bound in zip(parts, bounds, strict=True)]
        try:
            pixels = _pixels(source, size, frames, np.concatenate(each), square, beat)
        except NotAsListed as error:
            frames = _trusting_less(source, frames, error, beat)
            continue

        way = "in order" if frames.stamps is None else "by seeking"
        ends = np.cumsum([len(indices) for indices in each])[:-1]
        return [
            Reading(own, indices, frames.times[indices], f"PyAV, {way}", frames.reason)
            for own, indices in zip(np.split(pixels, ends), each, strict=True)
        ]


def _trusting_less(source: Source, frames: FrameList, error: NotAsListed, beat: Beat) -> FrameList:
    """The list to try next, where reading by `frames` failed; ValueError where nothing is left.

    Each trusts less of what the file says: which pictures may be left out, then packets, then time stamps, then nothing
    but the decoder.
    """
    if frames.disposable.any() and not isinstance(error, Undecodable):
        frames = frames.with_all_decoded()
    elif not frames.decoded:
        frames = _list_by_decoding(source, str(error), partial(beat, 0, 0), quiet=False)
    elif frames.stamps is not None and isinstance(error, Undecodable):
        # The damage is here: other parts of the file can still be found by their time stamps.
        return frames.counted(str(error))
    elif frames.stamps is not None:
        frames = frames.counted(str(error))
    else:
        raise ValueError(str(error)) from None
    FRAME_LISTS.put(source, frames)
    return frames


def _read_animation(file: LocalFile, size: int, part: Part, square: Square | None) -> Reading:
    frames = list_animation(file)
    first, stop = frames.part(part.start, part.end)
    indices = _chosen(part.choose, frames, first, stop)
    pixels = read_animation(file, size, indices, None if square is None else partial(_squared, square))
    return Reading(pixels, indices, frames.times[indices], "Pillow", frames.reason)


def _chosen(choose: ChooseFrames, frames: FrameList, first: int, stop: int) -> np.ndarray:
    """The indices of the frames chosen from `first` to `stop`."""
    return first + (choose.choose(frames.times[first:stop]) if isinstance(choose, ByTime) else choose(stop - first))


def _pixels(
    source: Source, size: int, frames: FrameList, indices: np.ndarray, square: Square | None, beat: Beat
) -> np.ndarray:
    """(T, size, size, 3) uint8; a frame is decoded and resized once, however often it is wanted."""
    wanted, places = np.unique(indices, return_inverse=True)
    pixels = np.empty((len(indices), size, size, 3), np.uint8)

    # The places of each wanted frame, one after the other.
    by_frame = np.argsort(places, kind="stable")
    first_place = np.searchsorted(places[by_frame], np.arange(len(wanted) + 1))
    progress = [0]  # of all parts together

    def read_part(part: np.ndarray) -> Iterator[None]:
        # Of one size; of whole frames, by each size that the video has.
        shrinkers: dict[tuple[int, int], Shrinker] = {}
        first = int(np.searchsorted(wanted, part[0]))

        with opened(source) as (container, stream):
            found = frames_at(container, stream, frames, part, lambda: beat(progress[0], len(wanted)))
            for number, frame in enumerate(found, start=first):
                side = (size, size) if square is None else (frame.width, frame.height)
                if side not in shrinkers:
                    shrinkers[side] = Shrinker(source.name, *side)
                picture = shrinkers[side].shrink(frame)
                own_places = by_frame[first_place[number] : first_place[number + 1]]
                pixels[own_places] = picture if square is None else _squared(square, picture)
                progress[0] += 1
                yield

    run_side_by_side([read_part(part) for part in parts_to_read(frames, wanted, torch.get_num_threads())])
    return pixels


def _squared(square: Square, picture: np.ndarray) -> np.ndarray:
    """Apply `square` to a picture (H, W, 3)."""
    return square(torch.from_numpy(picture.copy()).permute(2, 0, 1)).permute(1, 2, 0).numpy()


def _list_by_decoding(source: Source, doubt: str, beat: Callable[[], None], quiet: bool) -> FrameList:
    refusal = FRAME_LISTS.refusal(source)
    if refusal is not None:
        raise ValueError(refusal)
    if not quiet:
        warn_once(
            "listing",
            f"{source.name}: is decoded to its end to find its frames ({doubt}), once in each process; "
            "scripts.preprocess_videos makes files that need not be",
        )

    try:
        with opened(source) as (container, stream):
            return by_decoding(container, stream, doubt, beat)
    except ValueError as error:
        FRAME_LISTS.refuse(source, str(error))
        raise
