"""Images of more than eight bits, animated WebP, and videos of high dynamic range."""

import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from datasets import decode
from datasets.video import files, pixels
from tests import barcodes
from tests.pairs import dataset_of


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("a.png", np.linspace(0, 65535, 256).round().astype(np.uint16), np.arange(256)),
        ("float.png", np.linspace(0, 1, 256, dtype=np.float32), np.arange(256)),
        ("bytes.png", np.arange(256, dtype=np.float32), np.arange(256)),
        ("words.png", (np.arange(256) * 257).astype(np.float32), np.arange(256)),
    ],
)
def test_deep_grey_is_scaled(tmp_path: Path, name: str, pixels: np.ndarray, expected: np.ndarray) -> None:
    # Pillow knows a format by its contents; PNG cannot hold floats.
    Image.fromarray(np.tile(pixels, (4, 1))).save(tmp_path / name, format="PNG" if name == "a.png" else "TIFF")
    found = decode.read_image(str(tmp_path / name))
    assert (found == found[:1]).all()
    assert (found[0].numpy() == expected).all()


def write_animation(path: Path) -> Path:
    """Barcodes 0 to 9, a tenth of a second each, the fourth for a whole second."""
    pictures = [Image.fromarray(barcodes.barcode(number)) for number in range(10)]
    durations = [1000 if number == 3 else 100 for number in range(10)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, lossless=True)
    return path


def test_animated_webp_is_a_video(tmp_path: Path) -> None:
    path = str(write_animation(tmp_path / "a.webp"))
    Image.fromarray(barcodes.barcode(1)).save(tmp_path / "still.webp")
    assert not decode.is_still(path) and decode.is_still(str(tmp_path / "still.webp"))
    reading = decode.read(path, 64, np.arange)
    assert barcodes.numbers(reading.frames) == list(range(10)) and reading.reader == "Pillow"
    assert barcodes.numbers(decode.read(path, 64, np.arange, 0.6, 1.4).frames) == [3, 4]
    assert decode.read_times(path, np.arange)[3:6] == pytest.approx([0.3, 1.3, 1.4])
    assert decode.seconds(path) == pytest.approx(1.9)
    still = np.asarray(decode.read_still(path, 0.75))
    assert barcodes.numbers(still[None]) == [3]


def hdr_frame(transfer: int) -> av.VideoFrame:
    """A 10-bit frame in BT.2020 that is grey in its middle."""
    frame = av.VideoFrame(64, 64, "yuv420p10le")
    for plane, value in zip(frame.planes, (576, 512, 512), strict=True):
        plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, 9, 9, 1
    return frame


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
@pytest.mark.parametrize("is_supported", [True, False])
def test_hdr_is_tone_mapped_with_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, transfer: int, name: str, is_supported: bool
) -> None:
    monkeypatch.setattr(files, "_warned", set())
    if not is_supported:
        monkeypatch.setattr(pixels, "TONE_MAPPING", "no_such_option=1")
    with caplog.at_level(logging.WARNING):
        shrinker = pixels.Shrinker("a.mp4", 32, 32)
        found = [shrinker.shrink(hdr_frame(transfer)).mean() for _ in range(2)]
    (message,) = caplog.messages
    assert message.startswith("a.mp4: is HDR") and name in message
    assert ("is tone-mapped to SDR" if is_supported else "does not tone-map") in message
    # As if it were SDR, the frame would be grey of (576 - 64) * 255 / 876. Half of PQ is 92 cd/m2, nearly SDR's white,
    # half of HLG a twelfth of the peak of the scene.
    assert all((abs(grey - 149) < 4) != is_supported for grey in found), found


def test_a_data_set_reads_an_animation_as_a_video(tmp_path: Path) -> None:
    from datasets.pairs import PairTable
    from datasets.records import VideoTextRecord

    path = write_animation(tmp_path / "a.webp")
    data = dataset_of(
        PairTable.of([VideoTextRecord(str(path), ("numbers",))]),
        num_frames=5, image_size=64, sampling="uniform", seed=0, training=False,
    )  # fmt: skip
    clip = data[0].clip.pixels
    assert barcodes.numbers(clip.permute(0, 2, 3, 1).numpy()) == [1, 3, 5, 7, 9]
    assert data.frame_times(0) == pytest.approx([0.1, 0.3, 1.4, 1.6, 1.8])
