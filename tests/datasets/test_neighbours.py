"""A batch of parts of one file is read in one pass, and is what its items are one by one, whatever cannot be read."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from datasets import decode
from datasets.records import VideoTextRecord
from datasets.video_text import VideoTextDataset
from tests.pairs import dataset_of
from tests.videos import grey_steps, write_video


def dataset(records: Sequence[VideoTextRecord]) -> VideoTextDataset:
    return dataset_of(records, num_frames=4, image_size=32, sampling="uniform", seed=5, training=False)


def test_neighbours_of_one_file_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = str(write_video(tmp_path / "steps.mp4", grey_steps(20)))
    (tmp_path / "broken.mp4").write_text("no video")
    Image.new("RGB", (48, 48), (9, 99, 200)).save(tmp_path / "image.png")
    others = [VideoTextRecord(str(tmp_path / name), ("a",)) for name in ("broken.mp4", "image.png")]
    parts = [(None, None), (0.0, 1.0), (0.5, 1.5), (9.0, None), (1.0, 1.8)]
    rows = [VideoTextRecord(steps, (f"part {number}",), *part) for number, part in enumerate(parts)]
    every = [*rows[:3], *others, *rows, rows[0]]
    expected = [dataset(every)[index] for index in range(len(every))]

    read: list[int] = []
    read_parts = decode.read_parts
    monkeypatch.setattr(
        decode,
        "read_parts",
        lambda file, size, parts, *more: read.append(len(parts)) or read_parts(file, size, parts, *more),
    )
    data = dataset(every)
    for _ in range(2):
        found = data.__getitems__(range(len(every)))
        for one, together in zip(expected, found, strict=True):
            assert (one.index, one.texts, one.rows, one.failed) == (
                together.index,
                together.texts,
                together.rows,
                together.failed,
            )
            assert (one.clip is None) == (together.clip is None)
            if one.clip is not None and together.clip is not None:
                assert torch.equal(one.clip.pixels, together.clip.pixels)
                assert torch.equal(one.clip.times, together.clip.times)
    assert [sample.failed == [] for sample in found] == [True] * 3 + [False, True] + [True] * 3 + [False] + [True] * 2
    # Together; the broken file; together in vain, as one part lies behind the end, so each by itself. Then known ones.
    assert read == [3, 1, 6, *[1] * 6, 3, 5]
    assert [sample.index for sample in data.__getitems__([5, 2])] == [5, 2]
