"""TFRecord shards, written byte by byte, become videos that show their frames; damage is named by shard and offset."""

import io
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from datasets.decode import read_video
from datasets.tfrecords import byte_strings, checksum, offsets, read_record
from scripts.convert_tfrecords import __main__ as command

SIDE = 32
Run = Callable[..., int]


def field(number: int, content: bytes) -> bytes:
    """A field of protocol buffers that holds bytes."""
    length, encoded = len(content), b""
    while length > 127:
        encoded, length = encoded + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + encoded + bytes([length]) + content


def example(strings: list[bytes], name: bytes = b"image") -> bytes:
    """A `tf.train.Example` with a number feature before the one that is wanted."""
    number = field(1, b"length") + field(2, field(3, field(1, b"\x05")))
    values = b"".join(field(1, string) for string in strings)
    return field(1, field(1, number) + field(1, field(1, name) + field(2, field(1, values))))


def write_shard(path: Path, contents: list[bytes]) -> list[int]:
    """Records with the checksums of tensorboard's own implementation; where each begins."""
    begins, written = [], b""
    for content in contents:
        begins.append(len(written))
        length = struct.pack("<Q", len(content))
        written += length + struct.pack("<I", masked_crc32c(length)) + content
        written += struct.pack("<I", masked_crc32c(content))
    path.write_bytes(written)
    return begins


def coloured(blue: int, green: int, red: int, count: int) -> np.ndarray:
    return np.broadcast_to(np.array([blue, green, red], np.uint8), (count, SIDE, SIDE, 3)).copy()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    def run(captions: list[dict[str, Any]], *options: object) -> int:
        (tmp_path / "captions.json").write_text(json.dumps(captions))
        words = [tmp_path / "shards", tmp_path / "out", "--captions", tmp_path / "captions.json", "--side", SIDE]
        monkeypatch.setattr(sys, "argv", ["convert_tfrecords", *map(str, [*words, "--jobs", 0, *options])])
        return command.main()

    (tmp_path / "shards").mkdir()
    return run


def test_checksums_are_tensorboards() -> None:
    for content in (b"", b"12345678", bytes(range(256))):
        assert checksum(content) == masked_crc32c(content)


def test_frames_of_either_kind_become_videos_with_their_captions(run: Run, tmp_path: Path) -> None:
    jpegs = []
    for frame in coloured(0, 200, 0, 3):
        buffer = io.BytesIO()
        Image.fromarray(frame[..., ::-1]).save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
    shard = tmp_path / "shards" / "a.tfrecord"
    contents = [example([coloured(0, 0, 200, 5).tobytes()]), example(jpegs)]
    begins = write_shard(shard, contents)
    assert list(offsets(shard)) == begins
    index = [f"red\t/elsewhere/a.tfrecord\t{begins[0]}", f"green\ta.tfrecord\t{begins[1]}"]
    (tmp_path / "shards" / "path.index").write_text("\n".join(index) + "\n")
    captions = [{"video_id": "red", "caption": "all red"}, {"video_id": "green", "caption": "grün"}]
    assert run(captions) == 0

    for name, channel, count in (("red", 0, 5), ("green", 1, 3)):
        frames = read_video(str(tmp_path / "out" / "videos" / f"{name}.mp4"), SIDE, np.arange)
        assert len(frames) == count
        means = frames.float().mean(dim=(0, 2, 3))
        assert means[channel] > 180 and sum(means) - means[channel] < 60
    lines = (tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"video": "red.mp4", "caption": "all red"},
        {"video": "green.mp4", "caption": "grün"},
    ]
    # What is there is not made again, whatever became of its shard.
    shard.unlink()
    assert run(captions) == 0


def test_what_cannot_be_converted_is_named(run: Run, tmp_path: Path, capsys: Any) -> None:
    fine = example([coloured(9, 9, 9, 2).tobytes()])
    cut = example([coloured(9, 9, 9, 2).tobytes()[:-5]])
    begins = write_shard(tmp_path / "shards" / "a.tfrecord", [fine, cut, example([b"x"], name=b"video")])
    places = {"fine": begins[0], "cut": begins[1], "other": begins[2], "off": begins[1] + 1, "beyond": 10**9}
    index = "".join(f"{name}\ta.tfrecord\t{begin}\n" for name, begin in places.items())
    (tmp_path / "shards" / "path.index").write_text(index)
    assert run([{"video_id": name, "caption": name} for name in (*places, "unknown")]) == 1
    rows = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    reasons = {row["clip"]: row["reason"] for row in rows}
    assert reasons.keys() == {"cut", "other", "off", "beyond", "unknown"}
    assert f"a.tfrecord: byte {begins[1]}: 6139 bytes are no whole frames of 32 x 32" in reasons["cut"]
    assert "has no feature 'image', only 'length', 'video'" in reasons["other"]
    assert "no record begins here" in reasons["off"] and "the file ends here" in reasons["beyond"]
    assert "does not name it" in reasons["unknown"]
    assert len((tmp_path / "out" / "train.jsonl").read_text().splitlines()) == 1


def test_a_wrong_index_or_list_ends_the_command(run: Run, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "shards" / "path.index").write_text("a\tb\n")
    assert run([{"video_id": "a", "caption": "b"}]) == 2
    assert "path.index:1: " in capsys.readouterr().err
    (tmp_path / "shards" / "path.index").write_text("")
    assert run([{"video_id": "../a", "caption": "b"}]) == 2
    assert "'../a' is no plain name" in capsys.readouterr().err
    assert run([{"caption": "b"}]) == 2
    assert "no JSON list of video_id and caption" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"\x0a\xff", b"\x0a\x05ab", b"\x0b", b"\xff" * 12])
def test_other_content_is_refused(content: bytes, tmp_path: Path) -> None:
    (begin,) = write_shard(tmp_path / "a.tfrecord", [content])
    with pytest.raises(ValueError, match=r"no tf\.train\.Example"):
        byte_strings(read_record(tmp_path / "a.tfrecord", begin), "image")
