"""Frames and parts of videos, images, and files that break readers."""

import gc
import os
import struct
import threading
import time
from pathlib import Path

import decord
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from datasets import decode, sampling
from datasets.decode import DecodeError, read_image, read_video
from datasets.video.frame_list import FrameList
from tests.videos import frame_numbers, grey_steps, write_video

READABLE = ("av1.mkv", "h265_10_frames.mp4", "rot_0.mov", "rot_90.mov", "rot_180.mov", "rot_270.mov", "unordered.mov")
BROKEN = ("corrupted.mp4", "truncated.mp4", "empty.mp4", "not_a_video.mp4")


def spread(count: int) -> decode.ChooseFrames:
    return lambda length: sampling.uniform(count, length, np.random.default_rng(0))


def every_frame(length: int) -> np.ndarray:
    return np.arange(length)


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    """20 frames at 10 a second, each of a grey of its own."""
    return write_video(tmp_path / "steps.mp4", grey_steps(20))


@pytest.mark.parametrize("indices", [[0, 7, 19], [3, 3, 3, 12], [19], list(range(20))])
def test_the_frames_asked_for(steps: Path, indices: list[int]) -> None:
    clip = read_video(str(steps), 32, lambda length: np.array(indices))
    assert clip.dtype == torch.uint8 and clip.shape == (len(indices), 3, 32, 32)
    assert frame_numbers(clip) == indices


@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [
        (None, None, list(range(20))),
        (0.5, 0.8, [5, 6, 7]),
        (0.7, None, list(range(7, 20))),
        (None, 0.3, [0, 1, 2]),
        (0.55, 0.75, [5, 6, 7]),
        (1.21, 1.22, [12]),
        (1.9, 99.0, [19]),
    ],
)
def test_parts(steps: Path, start: float | None, end: float | None, frames: list[int]) -> None:
    assert frame_numbers(read_video(str(steps), 32, every_frame, start, end)) == frames


def test_a_part_behind_the_end(steps: Path) -> None:
    with pytest.raises(
        DecodeError, match=r"steps.mp4: start 2.0 s lies behind the end of the video, which is 2.00 s long"
    ):
        read_video(str(steps), 32, every_frame, 2.0, 3.0)


def test_part_goes_by_time_where_the_frame_rate_varies() -> None:
    frames = FrameList(np.array([0.0, 0.1, 0.2, 5.0, 5.1]), 5.2, decoded=False, reason="")
    assert frames.part(3.0, 5.05) == (2, 4)
    assert frames.part(3.0, 4.0) == (2, 3)
    assert FrameList(np.array([0.0]), 0.1, decoded=False, reason="").part(0.0, 1.0) == (0, 1)


def by_decord(path: str, choose: decode.ChooseFrames) -> np.ndarray:
    """The frames as another library reads them, (T, 64, 64, 3)."""
    reader = decord.VideoReader(path, width=64, height=64, num_threads=1)
    return reader.get_batch(choose(len(reader))).asnumpy()


@pytest.mark.parametrize("codec_suffix", [("mpeg4", ".avi"), ("libx264", ".mkv")])
def test_pixels_are_those_of_another_reader(tmp_path: Path, codec_suffix: tuple[str, str]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 4), dtype=np.uint8)
    picture = np.kron(noise, np.ones((16, 16), dtype=np.uint8))[None, :, :, None]
    frames = np.concatenate([np.roll(picture, 5 * shift, axis=2) for shift in range(8)]).repeat(3, axis=3)
    path = str(write_video(tmp_path / f"picture{codec_suffix[1]}", frames, codec=codec_suffix[0]))
    clip = read_video(path, 64, every_frame).permute(0, 2, 3, 1).numpy()
    assert np.abs(by_decord(path, every_frame).astype(int) - clip).mean() < 1


def test_broken_files(tmp_path: Path, steps: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n")
    (tmp_path / "cut.mp4").write_bytes(steps.read_bytes()[:500])
    for name, reason in [("gone", "no such file"), ("empty.mp4", "empty"), ("text.mp4", "PyAV"), ("cut.mp4", "PyAV")]:
        with pytest.raises(DecodeError, match=reason) as error:
            read_video(str(tmp_path / name), 16, every_frame)
        assert error.value.path.endswith(name) and "\n" not in error.value.reason


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import wave

    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(8000))
    with pytest.raises(DecodeError, match="no video stream"):
        read_video(str(tmp_path / "sound.wav"), 16, every_frame)


def test_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (read_image(str(tmp_path / "a.png")).permute(1, 2, 0).numpy() == pixels).all()
    # Orientation 6: to be turned by 90 degrees clockwise.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert (read_image(str(tmp_path / "turned.png")).permute(1, 2, 0).numpy() == np.rot90(pixels, -1)).all()
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    assert (read_image(str(tmp_path / "grey.png")).numpy() == pixels[None, ..., 0]).all()


def test_broken_images(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("cut.png", "text.jpg", "gone.jpg"):
        with pytest.raises(DecodeError, match="Pillow") as error:
            read_image(str(tmp_path / name))
        assert "\n" not in error.value.reason


@pytest.mark.parametrize("name", READABLE + BROKEN + ("vp9.webm",))
def test_hard_files_are_read_or_refused_in_time(real_data: Path, name: str) -> None:
    path = str(real_data / "clips/hard" / name)
    started = time.monotonic()
    if name in BROKEN:
        with pytest.raises(DecodeError) as error:
            read_video(path, 64, spread(8))
        assert error.value.path == path and 0 < len(error.value.reason) < 500 and "\n" not in error.value.reason
    else:
        clip = read_video(path, 64, spread(8))
        assert clip.shape == (8, 3, 64, 64) and clip.float().mean() > 50
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", [name for name in READABLE if name != "av1.mkv"])
def test_hard_files_look_as_another_reader_shows_them(real_data: Path, name: str) -> None:
    path = str(real_data / "clips/hard" / name)
    expected = by_decord(path, every_frame).astype(int)
    clip = read_video(path, 64, every_frame).permute(0, 2, 3, 1).numpy()
    assert expected.shape == clip.shape
    assert np.abs(expected - clip).mean() < 1
    if name.startswith("rot"):
        # The bound means something: a picture the wrong way round is far away.
        assert np.abs(expected - np.rot90(clip, 2, axes=(1, 2))).mean() > 10


def test_real_clips_look_as_another_reader_shows_them(real_data: Path) -> None:
    for path in sorted((real_data / "clips/videos").glob("*.mp4")):
        clip = read_video(str(path), 64, spread(4)).permute(0, 2, 3, 1).numpy()
        assert np.abs(by_decord(str(path), spread(4)).astype(int) - clip).mean() < 1, path.name


def test_nothing_piles_up(tmp_path: Path, steps: Path) -> None:
    broken = tmp_path / "broken.mp4"
    content = bytearray(steps.read_bytes())
    content[100:1500] = bytes(1400)
    broken.write_bytes(content)

    def held() -> tuple[int, int, int]:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), pages * 4096

    def read_all() -> None:
        for path in (steps, broken):
            try:
                read_video(str(path), 64, spread(8))
            except DecodeError:
                pass

    for _ in range(5):
        read_all()
    files, threads, memory = held()
    running = threading.active_count()
    for _ in range(40):
        read_all()
    files_after, threads_after, memory_after = held()
    assert files_after <= files and threads_after <= threads
    assert memory_after - memory < 20e6
    assert threading.active_count() <= running


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.array(ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(str(path)).permute(1, 2, 0).numpy(), expected)


def test_an_image_whose_tags_cannot_be_written_again_is_read(tmp_path: Path) -> None:
    tags = struct.pack("<HHIIHHII", 262, 5, 2, 8, ExifTags.Base.Orientation, 3, 1, 6)
    exif = b"Exif\0\0II*\0\x08\0\0\0\2\0" + tags + bytes(24)
    Image.new("RGB", (6, 4)).save(tmp_path / "image.jpg", exif=exif)
    with Image.open(tmp_path / "image.jpg") as image, pytest.raises(KeyError):
        ImageOps.exif_transpose(image, in_place=True)
    assert read_image(str(tmp_path / "image.jpg")).shape == (3, 6, 4)  # turned


def test_a_codec_that_nobody_knows_is_an_error_of_the_file(steps: Path) -> None:
    content = steps.read_bytes()
    (known,) = [name for name in (b"avc1", b"mp4v", b"av01") if name in content]
    steps.write_bytes(content.replace(known, b"zzzz"))
    with pytest.raises(DecodeError, match="no decoder for its codec"):
        read_video(str(steps), 32, every_frame)


def test_a_name_that_is_too_long_is_an_error_of_the_file(tmp_path: Path) -> None:
    long = str(tmp_path / f"{'a' * 300}.mp4")
    with pytest.raises(DecodeError, match="File name too long"):
        read_video(long, 32, every_frame)
    with pytest.raises(DecodeError, match="File name too long"):
        read_image(long)
    with pytest.raises(DecodeError, match="not a file"):
        read_video(str(tmp_path), 32, every_frame)


def test_a_name_that_is_not_utf_8_is_read(steps: Path) -> None:
    odd = os.fsdecode(bytes(steps.parent) + b"/caf\xe9.mp4")
    os.rename(steps, odd)
    assert frame_numbers(read_video(odd, 32, every_frame)) == list(range(20))
