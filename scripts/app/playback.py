"""Videos as a browser shows them: which files it plays as they are, copies of the others, and single frames."""

import io
from collections.abc import Callable
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import Image

from datasets.decode import DecodeError, is_still, read_image, read_still
from datasets.records import is_image
from datasets.transcoding.recipes import Recipe
from datasets.transcoding.transcode import transcode

FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg"
"""What uploads may be: containers that hold their video, no lists that name other files or addresses."""
MOST_PIXELS = 8192 * 4320
STILL_PIXELS = 480
COPY = Recipe(short_side=480)
"""What files become that browsers do not play."""
PLAYABLE_CODECS = {"mp4": ("h264", "av1", "vp9"), "webm": ("vp8", "vp9", "av1")}
PLAYABLE_PIXELS = ("yuv420p", "yuvj420p")
HEAD_BYTES = 64
"""Within so many a Matroska file says whether it is a WebM."""


def media_type(path: Path) -> str | None:
    """The type under which a browser plays a file as it is; None if it does not. ValueError if it cannot be read."""
    try:
        if is_image(path.name):
            with Image.open(path) as image:
                return Image.MIME[image.format or ""]
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = _video_stream(container)
            kind = _container_kind(container, path)
            codec, pixels = stream.codec_context.codec.canonical_name, stream.codec_context.pix_fmt
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); give another file") from None
    return f"video/{kind}" if codec in PLAYABLE_CODECS.get(kind, ()) and pixels in PLAYABLE_PIXELS else None


def write_copy(path: Path, target: Path, check: Callable[[], None] = lambda: None) -> None:
    """Write a copy that browsers play, without sound.

    Args:
        check: called before the copy and for each frame; what it raises ends the copy and passes through.

    Raises:
        ValueError: the video cannot be read. However this ends early, nothing is left of the copy.
    """
    try:
        check()
        transcode(path, target, COPY, check)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, av.FFmpegError | OSError | ValueError):
            raise ValueError(f"{path}: cannot be played ({error}); give another file") from None
        raise


def still(path: Path | str, seconds: float) -> bytes:
    """The frame on screen `seconds` after the first, as a small upright JPEG. ValueError if it cannot be read."""
    try:
        if is_still(str(path)):
            picture = Image.fromarray(read_image(str(path)).permute(1, 2, 0).numpy())
        else:
            picture = read_still(str(path), seconds)
    except DecodeError as error:
        raise ValueError(f"{path}: cannot be read ({error.reason})") from None
    picture.thumbnail((STILL_PIXELS, STILL_PIXELS))
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=85)
    return written.getvalue()


def check_upload(path: Path) -> None:
    """ValueError, in words for whoever sent the file, unless it is a video whose first frame can be decoded."""
    try:
        # Asked before anything of the file is followed: a playlist may name other files and addresses.
        with av.open(str(path), options={"format_whitelist": FORMATS}, metadata_errors="ignore") as container:
            stream = _video_stream(container)
            if stream.width * stream.height > MOST_PIXELS:
                raise ValueError(f"{stream.width} x {stream.height} pixels are too many")
            stream.codec_context.thread_count = 1
            if next(container.decode(stream), None) is None:
                raise ValueError("it has no frames")
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, av.FFmpegError) else str(error)
        raise ValueError(f"cannot be read as a video ({reason}); give an mp4, webm, mkv, mov or avi file") from None


def _container_kind(container: InputContainer, path: Path) -> str:
    """`mp4` or `webm`, or the name of the format where it is neither."""
    if "mp4" in container.format.name:
        return "mp4"
    if "webm" in container.format.name:
        with path.open("rb") as file:
            return "webm" if b"webm" in file.read(HEAD_BYTES) else "matroska"
    return container.format.name


def _video_stream(container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise ValueError("it holds no video")
    return stream
