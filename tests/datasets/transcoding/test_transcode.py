import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from datasets import decode
from datasets.transcoding.recipes import PRESETS, Recipe
from datasets.transcoding.transcode import Written, resample, transcode, turn
from tests import barcodes
from tests.videos import frame_numbers, grey_steps, write_video


def everything(length: int) -> np.ndarray:
    return np.arange(length)


def run(source: Path, recipe: Recipe) -> tuple[Path, Written]:
    target = source.with_name(f"{source.name}.out.mp4")
    return target, transcode(source, target, recipe, lambda: None)


def numbers(path: Path) -> list[int]:
    return frame_numbers(decode.read_video(str(path), 32, everything))


def write_at(path: Path, times: list[float]) -> Path:
    """Frames of `grey_steps` at times of their own."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width = stream.height = 32
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for time, pixels in zip(times, grey_steps(len(times)), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_with_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        pictures, sound = container.add_stream("libx264", rate=10), container.add_stream("aac", rate=16000)
        pictures.width = pictures.height = 32
        for pixels in grey_steps(10):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        tone.sample_rate = 16000
        for stream, frame in ((sound, tone), (sound, None), (pictures, None)):
            container.mux(stream.encode(frame))
    return path


@pytest.mark.parametrize("seed", range(20))
def test_resampling_equals_a_search_for_each_tick(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(0.1, size=30))
    times = (times - times[0]).round(3)
    fps, end = rng.uniform(1, 40), float(times[-1]) + 0.05
    found = list(resample(zip(times.tolist(), range(30), strict=True), fps, end))
    expected = []
    for tick in range(max(math.floor(end * fps + 0.5), 1)):
        shown = [number for number, time in enumerate(times) if math.floor(time * fps + 0.5) <= tick]
        expected.append((tick, shown[-1]))
    assert found == expected


def test_without_a_rate_frames_keep_their_times() -> None:
    assert list(resample([(0.0, "a"), (0.0, "b"), (0.7, "c")], None, 1.0)) == [(0.0, "a"), (0.7, "c")]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(fps=10), list(range(12))),
        (Recipe(fps=5), [0, 2, 4, 6, 8, 10]),
        (Recipe(fps=20), [number for number in range(12) for _ in range(2)]),
        (Recipe(seconds=0.5), list(range(5))),
        (Recipe(fps=20, seconds=0.35), [0, 0, 1, 1, 2, 2, 3]),
        (Recipe(seconds=100), list(range(12))),
    ],
)
def test_rate_and_length(tmp_path: Path, recipe: Recipe, expected: list[int]) -> None:
    out, written = run(write_video(tmp_path / "in.mp4", grey_steps(12), fps=10), recipe)
    assert numbers(out) == expected
    assert written.frames == len(expected) and written.damaged == 0
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate or 0) == pytest.approx(recipe.fps or 10)
        assert float(stream.duration * stream.time_base) == pytest.approx(len(expected) / (recipe.fps or 10), abs=1e-3)


def test_irregular_times(tmp_path: Path) -> None:
    source = write_at(tmp_path / "in.mp4", [0.0, 0.1, 0.2, 1.0, 1.05, 2.0])
    # At 5 a second frame 4 is nearer to a tick (1.05 to 1.0) that frame 3 had; the later one stays. Frame 5 is shown
    # for a thirtieth of a second, which is less than half a tick.
    assert numbers(run(source, Recipe(fps=5))[0]) == [0, 2, 2, 2, 2, 4, 4, 4, 4, 4]
    kept, _ = run(source, Recipe(short_side=16))
    assert numbers(kept) == [0, 1, 2, 3, 4, 5]
    with av.open(str(kept)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([0.0, 0.1, 0.2, 1.0, 1.05, 2.0], abs=1e-3)


@pytest.mark.parametrize(
    ("recipe", "shown", "expected"),
    [
        (Recipe(short_side=224), (640, 360), (398, 224)),
        (Recipe(short_side=224), (360, 640), (224, 398)),
        (Recipe(short_side=224), (320, 180), (320, 180)),
        (Recipe(short_side=224, upscale=True), (320, 180), (398, 224)),
        (Recipe(), (641, 361), (640, 360)),
        (PRESETS["webvid"], (596, 336), (454, 256)),
    ],
)
def test_size(recipe: Recipe, shown: tuple[int, int], expected: tuple[int, int]) -> None:
    assert recipe.size(*shown) == expected


def test_sound_is_left_out(tmp_path: Path) -> None:
    source = write_with_sound(tmp_path / "in.mp4")
    with av.open(str(source)) as container:
        assert len(container.streams) == 2
    with av.open(str(run(source, Recipe(fps=10))[0])) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert container.streams.video[0].codec.name == "h264"


@pytest.mark.parametrize("recipe", [Recipe(fps=5), Recipe(short_side=32)])
def test_a_picture_that_stands_keeps_its_length(tmp_path: Path, recipe: Recipe) -> None:
    """A recording of 10 s whose last picture, frame 10, comes after one second."""
    source = barcodes.write_held(tmp_path / "in.mp4", barcodes.KINDS["h264_b"], frames=11, seconds=10.0)
    target, written = run(source, recipe)
    assert written.seconds == pytest.approx(10.0, abs=0.05)
    for start in (0.6, 5.0, 9.5):
        clip = decode.read_video(str(target), 64, lambda length: np.array([0]), start, start + 0.2)
        assert barcodes.numbers(clip.permute(0, 2, 3, 1).numpy()) == [10]


@pytest.mark.parametrize("quarters", [-2, -1, 1, 2])
def test_turning_is_that_of_the_pixels(quarters: int) -> None:
    ramp = np.linspace(0, 255, 64 * 32 * 3).reshape(64, 32, 3).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(ramp, format="rgb24").reformat(format="yuv420p")
    expected = np.rot90(frame.to_ndarray(format="rgb24"), quarters).astype(int)
    assert np.abs(turn(frame, quarters).to_ndarray(format="rgb24") - expected).max() <= 8


def test_a_file_that_ends_too_early_fails(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), dtype=np.uint8)
    whole, _ = run(write_video(tmp_path / "in.mp4", noise), Recipe(fps=10))
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises((ValueError, av.FFmpegError), match="cut off"):
        run(tmp_path / "cut.mp4", Recipe(fps=10))
    # What is asked for is there.
    assert run(tmp_path / "cut.mp4", Recipe(fps=10, seconds=0.5))[1].frames == 5


@pytest.mark.parametrize("name", ["arm_wrestling.mp4", "drumming.mp4", "eye_makeup.avi", "making_cake.mp4"])
def test_real_clips_look_as_before(real_data: Path, tmp_path: Path, name: str) -> None:
    source = real_data / "clips" / "videos" / name
    out = tmp_path / "out.mp4"
    written = transcode(source, out, Recipe(short_side=128), lambda: None)
    before = decode.read_video(str(source), 96, everything).permute(0, 2, 3, 1).double().numpy()
    after = decode.read_video(str(out), 96, everything).permute(0, 2, 3, 1).double().numpy()
    # Another frame, another colour matrix or another range would be far more than this.
    assert len(after) == len(before) == written.frames
    assert np.abs(before - after).mean((1, 2, 3)).max() < 7
    assert np.abs(before.mean((0, 1, 2)) - after.mean((0, 1, 2))).max() < 2.5


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotated_files_come_out_upright(real_data: Path, tmp_path: Path, degrees: int) -> None:
    source = real_data / "clips" / "hard" / f"rot_{degrees}.mov"
    out = tmp_path / "out.mp4"
    written = transcode(source, out, Recipe(short_side=128), lambda: None)
    assert (written.width < written.height) == (degrees in (90, 270))
    with av.open(str(out)) as container:
        frames = list(container.decode(video=0))
    assert {frame.rotation for frame in frames} == {0}
    before = decode.read_video(str(source), 96, everything).float()
    after = decode.read_video(str(out), 96, everything).float()
    assert (before - after).abs().mean() < 5


def test_damage_is_counted_and_what_no_reader_opens_becomes_readable(real_data: Path, tmp_path: Path) -> None:
    hard = real_data / "clips" / "hard"
    out = tmp_path / "out.mp4"
    assert transcode(hard / "corrupted.mp4", out, Recipe(fps=6), lambda: None).damaged > 0
    assert decode.read_video(str(out), 32, everything).shape[0] == 30
    transcode(hard / "av1.mkv", out, Recipe(fps=5), lambda: None)
    assert len(decode.read_video(str(out), 32, everything)) == 25
    for name in ("empty.mp4", "not_a_video.mp4", "truncated.mp4"):
        with pytest.raises((ValueError, av.FFmpegError)):
            transcode(hard / name, out, Recipe(fps=6), lambda: None)
