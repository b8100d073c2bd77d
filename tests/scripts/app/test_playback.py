"""Which files browsers play, and what a still shows, against the decoders that training reads through."""

from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from datasets.decode import read_video
from scripts.app.playback import check_upload, media_type, still, write_copy
from tests.videos import grey_steps, write_video


def still_of(path: Path, seconds: float, folder: Path) -> Image.Image:
    (folder / "still.jpg").write_bytes(still(path, seconds))
    return Image.open(folder / "still.jpg")


def vp9_video(path: Path) -> Path:
    """The packets of vp9.webm, five frames of `grey_steps`, in another file: encoders of VP9 fail on busy machines."""
    with av.open(str(Path(__file__).with_name("vp9.webm"))) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:  # the last one is empty, and says that there are no more
                packet.stream = stream
                container.mux(packet)
    return path


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("a.mp4", "libx264", "video/mp4"), ("a.mov", "libx264", "video/mp4"), ("a.mkv", "libx264", None),
        ("a.webm", "vp9", "video/webm"), ("a.mkv", "vp9", None), ("a.mp4", "mpeg4", None),
        ("a.avi", "libx264", None), ("a.mp4", "libx265", None),
    ],
)  # fmt: skip
def test_files_are_known_by_what_they_hold(tmp_path: Path, name: str, codec: str, expected: str | None) -> None:
    """Under their own name and without one, and what is not played is as a copy."""
    made = vp9_video if codec == "vp9" else partial(write_video, frames=grey_steps(5, size=64), codec=codec)
    path = made(tmp_path / name)
    check_upload(path)
    nameless = path.rename(tmp_path / "upload")
    check_upload(nameless)
    assert media_type(nameless) == expected
    if expected is None:
        write_copy(nameless, tmp_path / "copy.mp4")
        assert media_type(tmp_path / "copy.mp4") == "video/mp4"


def test_images_are_shown_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (900, 300), (200, 30, 30)).save(path)
    assert media_type(path) == "image/png"
    with still_of(path, 3.0, tmp_path) as shown:
        assert shown.size == (480, 160) and shown.getpixel((5, 5)) == pytest.approx((200, 30, 30), abs=3)
    path.write_bytes(b"nothing")
    for read in (media_type, lambda path: still(path, 0.0)):
        with pytest.raises(ValueError, match="a.png: cannot be read"):
            read(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
def test_a_still_is_the_frame_on_screen(tmp_path: Path, name: str) -> None:
    """Ten frames a second, of one grey each; behind the end it is the last one."""
    path = write_video(tmp_path / name, grey_steps(20), codec="mpeg4" if name == "a.avi" else "libx264")
    for seconds, frame in ((0.0, 0), (0.05, 0), (0.1, 1), (0.9, 9), (1.27, 12), (1.9, 19), (50.0, 19)):
        with still_of(path, seconds, tmp_path) as shown:
            assert round((np.asarray(shown).mean() - 20) / 10) == frame, seconds


@pytest.mark.parametrize("name", ["rot_0.mov", "rot_90.mov", "rot_180.mov", "rot_270.mov", "vp9.webm", "av1.mkv"])
def test_stills_stand_upright(real_data: Path, tmp_path: Path, name: str) -> None:
    path = real_data / "clips" / "hard" / name
    expected = read_video(str(path), 64, lambda length: np.zeros(1, np.int64))[0].permute(1, 2, 0).numpy()
    with still_of(path, 0.0, tmp_path) as shown:
        found = np.asarray(shown.resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(found.astype(float) - expected).mean() < 8


@pytest.mark.parametrize("name", ["empty.mp4", "not_a_video.mp4"])
def test_broken_files_are_named(real_data: Path, tmp_path: Path, name: str) -> None:
    path = real_data / "clips" / "hard" / name
    with pytest.raises(ValueError, match=f"{name}: cannot be"):
        media_type(path)
    with pytest.raises(ValueError, match=f"{name}: cannot be"):
        write_copy(path, tmp_path / "copy.mp4")
    with pytest.raises(ValueError, match="cannot be read as a video"):
        check_upload(path)
    assert not list(tmp_path.iterdir())
