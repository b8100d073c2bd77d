"""What the command writes of frames, against the frames of barcoded videos."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import show_frames
from tests import barcodes


def test_numbers_times_and_pictures_of_a_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = barcodes.write(tmp_path / "a.mp4", barcodes.KINDS["h264_open"], range(60))
    written = {name: tmp_path / f"out.{name}" for name in ("json", "npy", "png")}
    files = [argument for name, path in written.items() for argument in (f"--{name}", str(path))]
    show_frames.main([str(video), "--frames", "5", "--start", "0.4", "--end", "1.2", "--size", "96", *files])

    # Twenty frames, 10 to 29, in five segments of four: the middle of each.
    expected = [12, 16, 20, 24, 28]
    found = json.loads(written["json"].read_text())
    assert found["indices"] == expected
    assert found["times"] == pytest.approx([index / 25 for index in expected])
    assert found["reader"] == "PyAV, by seeking" and "h264" in found["reason"]
    frames = np.load(written["npy"])
    assert frames.dtype == np.uint8 and frames.shape == (5, 96, 96, 3)
    assert barcodes.numbers(frames) == expected
    with Image.open(written["png"]) as sheet:
        label = show_frames.LABEL_PIXELS
        assert sheet.size == (4 * 96, 2 * (96 + label))
        last = np.asarray(sheet)[96 + 2 * label :, :96]
    assert (last == frames[4]).all()
    assert "frame 28 at 1.120 s" in capsys.readouterr().out


def test_what_cannot_be_shown_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([str(tmp_path / "gone.mp4")], "no such file"),
        ([str(tmp_path), "--start", "2", "--end", "1"], "--end 1.0: give a time after --start"),
    ):
        with pytest.raises(SystemExit) as end:
            show_frames.main(arguments)
        error = capsys.readouterr().err
        assert end.value.code == 2 and message in error and "Traceback" not in error


def test_an_image_is_repeated(tmp_path: Path) -> None:
    Image.fromarray(barcodes.barcode(1234)).save(tmp_path / "a.png")
    reading = show_frames.read_frames(str(tmp_path / "a.png"), 3, 64)
    assert barcodes.numbers(reading.frames) == [1234] * 3
