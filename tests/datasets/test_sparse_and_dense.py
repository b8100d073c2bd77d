"""Frames of a file read sparsely, densely or in several parts are those of a plain decoder, with fewer decoded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from datasets import decode
from datasets.decode import DecodeError, Part, frame_list
from datasets.video import reading
from datasets.video.files import source_of
from datasets.video.pixels import Shrinker
from tests.barcodes import FPS, KINDS, Kind, remux
from tests.videos import write_video

FRAMES, SIZE = 96, 32
DISPOSING = {
    "h264_b": KINDS["h264_b"],
    "h264_pyramid": Kind("libx264", {"bf": "4", "g": "24", "x264-params": "b-pyramid=normal:b-adapt=0:keyint=24"}),
    "h264_open": KINDS["h264_open"],
    "h264_slices": Kind("libx264", {"bf": "3", "g": "24", "x264-params": "slices=3:b-adapt=0"}),
}
"""Kinds with pictures that no other refers to."""
ALL_KEYS = {"g": "12", "keyint_min": "12", "sc_threshold": "0", "bf": "0", "threads": "1"}


def moving(frames: int) -> np.ndarray:
    """Pictures (T, 64, 64, 3) of which each differs from those around it, everywhere."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (16, 64, 3), dtype=np.uint8).repeat(8, axis=0).repeat(2, axis=1)
    return np.stack([coarse[step % 64 :][:64, 2 * (step % 32) :][:, :64] for step in range(frames)])


@pytest.fixture(scope="module", params=DISPOSING)
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind = DISPOSING[request.param]
    path = tmp_path_factory.mktemp(request.param) / "a.mp4"
    return write_video(path, moving(FRAMES), FPS, kind.codec, {"threads": "1", **kind.options})


def plainly(path: Path) -> np.ndarray:
    """All frames (T, SIZE, SIZE, 3), decoded in order."""
    shrinker = Shrinker(str(path), SIZE, SIZE)
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return np.stack([shrinker.shrink(frame) for frame in container.decode(video=0)])


def of(indices: np.ndarray) -> Callable[[int], np.ndarray]:
    return lambda length: indices


def decoded(path: Path, indices: np.ndarray) -> tuple[np.ndarray, int]:
    """The frames of these indices, and how many were decoded for them."""
    beats: list[tuple[int, int]] = []
    found = decode.read(str(path), SIZE, of(indices), beat=lambda *state: beats.append(state))
    assert all(wanted == len(np.unique(indices)) for _, wanted in beats)
    assert [read for read, _ in beats] == sorted(read for read, _ in beats)
    return found.frames, len(beats)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_any_frames_are_those_of_a_plain_decoder(video: Path, suffix: str, tmp_path: Path) -> None:
    path = video if suffix == "mp4" else remux(video, tmp_path / "a.mkv")
    every, rng = plainly(path), np.random.default_rng(0)
    assert len(every) == FRAMES and frame_list(source_of(str(path))).disposable.sum() > FRAMES / 4
    chosen = [np.arange(0, FRAMES, step) for step in (1, 2, 3, 5, 7, 13, 25, 50)]
    chosen += [np.sort(rng.choice(FRAMES, count, replace=False)) for count in (1, 2, 4, 8, 16, 32) for _ in range(4)]
    for indices in chosen:
        assert np.array_equal(decoded(path, indices)[0], every[indices]), indices
    # Nothing had to be read in another way.
    assert frame_list(source_of(str(path))).disposable.any()


def test_fewer_frames_are_decoded_than_lie_between(video: Path) -> None:
    frames = frame_list(source_of(str(video)))
    kept = FRAMES - int(frames.disposable.sum())
    # Densely, in one pass: wanted frames, and those that others refer to.
    _, count = decoded(video, np.arange(0, FRAMES, 4))
    assert count <= kept + FRAMES / 4

    # Sparsely, one group apart: no more than from each key frame to the wanted one.
    starts = np.searchsorted(frames.stamps, frames.packet_stamps[frames.starts])
    assert len(starts) >= 4
    wanted = starts[[0, 2]] + 3
    _, count = decoded(video, wanted)
    assert count <= 2 * 8


def test_nothing_is_left_out_of_a_group_from_which_a_picture_is_missing(tmp_path: Path) -> None:
    """FFmpeg makes up what a missing picture was, from whatever it has decoded."""
    options = {**ALL_KEYS, "bf": "3", "x264-params": "b-adapt=0"}
    whole = write_video(tmp_path / "whole.mp4", moving(FRAMES), FPS, options=options)
    listed = frame_list(source_of(str(whole)))
    assert len(listed.starts) == FRAMES // 12
    inside = np.arange(listed.starts[3] + 1, listed.starts[4])
    missing = int(inside[~listed.disposable[inside]][0])  # one that others refer to

    path = tmp_path / "missing.mp4"
    with av.open(str(whole)) as container, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(container.demux(video=0)):
            if packet.dts is not None and number != missing:
                packet.stream = stream
                output.mux(packet)
    every, frames = plainly(path), frame_list(source_of(str(path)))
    group = np.searchsorted(frames.starts, np.arange(len(frames.sizes)), side="right") - 1
    assert set(group[frames.disposable].tolist()) == set(range(FRAMES // 12)) - {3}
    # What is made up depends on which buffers are free; all else is as always.
    elsewhere = np.concatenate([np.arange(36), np.arange(47, len(every))])
    for step in (1, 3, 5, 11):
        indices = elsewhere[2::step]
        assert np.array_equal(decoded(path, indices)[0], every[indices])


def test_where_pictures_cannot_be_left_out_all_are_decoded(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "FRAME_LISTS", reading.ListCache())
    frames_at = decode.frames_at

    def refusing(container: Any, stream: Any, frames: Any, *given: Any) -> Any:
        if frames.disposable.any():
            raise reading.NotAsListed("other frames come than are listed")
        return frames_at(container, stream, frames, *given)

    monkeypatch.setattr(decode, "frames_at", refusing)
    indices = np.arange(5, FRAMES, 20)
    found = decode.read(str(video), SIZE, of(indices))
    assert np.array_equal(found.frames, plainly(video)[indices]) and found.reason.startswith("every packet")
    assert not frame_list(source_of(str(video))).disposable.any()


def test_parts_are_read_in_one_pass(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def even(count: int) -> Callable[[int], np.ndarray]:
        return lambda length: np.linspace(0, length - 1, count).astype(np.int64)

    parts = [
        Part(even(5)),
        Part(even(8), 0.4, 1.6),
        Part(even(8), 1.0, 2.2),
        Part(even(30), 1.0, 1.2),
        Part(even(3), 3),
    ]
    apart = [decode.read(str(video), SIZE, *part) for part in parts]
    opened, every = [], reading.opened
    monkeypatch.setattr(decode, "opened", lambda source: opened.append(source) or every(source))
    beats: list[int] = []
    together = decode.read_parts(str(video), SIZE, parts, beat=lambda *state: beats.append(state[1]))
    assert len(opened) == 1
    for alone, found in zip(apart, together, strict=True):
        assert np.array_equal(alone.frames, found.frames) and np.array_equal(alone.indices, found.indices)
        assert np.array_equal(alone.times, found.times)
    assert beats[-1] == len(np.unique(np.concatenate([part.indices for part in apart])))
    with pytest.raises(DecodeError, match="lies behind the end"):
        decode.read_parts(str(video), SIZE, [*parts, Part(even(2), 60.0)])


def test_damage_is_met_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too much is damaged to list the file by decoding: that is found out once, and the rest can still be read."""
    path = write_video(tmp_path / "a.mp4", moving(FRAMES), FPS, options=ALL_KEYS)
    every = plainly(path)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for position, size in packets[50:58]:
        content[position : position + size] = bytes(size)
    path.write_bytes(content)

    listed = []
    by_decoding = decode.by_decoding
    monkeypatch.setattr(decode, "by_decoding", lambda *given: listed.append(1) or by_decoding(*given))
    for _ in range(3):
        with pytest.raises(DecodeError, match="frames are damaged"):
            decode.read(str(path), SIZE, of(np.arange(40, 60)))
        for indices in (np.arange(0, 40, 3), np.arange(60, FRAMES, 5)):
            assert np.array_equal(decoded(path, indices)[0], every[indices])
    assert len(listed) == 1


def test_little_damage_is_counted_out_where_it_is_and_the_rest_is_sought(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving(FRAMES), FPS, options=ALL_KEYS)
    every = plainly(path)
    with av.open(str(path)) as container:
        position, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][55]
    content = bytearray(path.read_bytes())
    content[position : position + size] = bytes(size)
    path.write_bytes(content)

    # The frame is gone; those after it in its group are made up, the next group is whole.
    for _ in range(2):
        damaged = decode.read(str(path), SIZE, of(np.arange(48, 70)))
        assert damaged.reader == "PyAV, in order" and damaged.times[7] == pytest.approx(56 / FPS)
        assert np.array_equal(damaged.frames[:7], every[48:55]) and np.array_equal(damaged.frames[11:], every[60:71])
        beside = decode.read(str(path), SIZE, of(np.arange(60, 90, 4)))
        assert beside.reader == "PyAV, by seeking" and np.array_equal(beside.frames, every[61:91:4])
