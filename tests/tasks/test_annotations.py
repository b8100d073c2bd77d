"""What a configuration says about its annotations beyond their files."""

import json
from pathlib import Path

import numpy as np
import pytest

from datasets.records import VideoTextRecord
from tasks.annotations import read_annotations
from tasks.data import video_text
from tests.tiny_runs import config
from tests.videos import write_video


def test_only_the_first_seconds_are_read(tmp_path: Path) -> None:
    """Of each video, and of each part of one; an image, and what is shorter, stay as they are."""
    (tmp_path / "videos").mkdir()
    frames = np.arange(0, 240, 30, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "videos" / "a.mp4", frames)
    rows = [
        {"video": "a.mp4", "caption": "x"},
        {"video": "a.mp4", "caption": "x", "start": 0.1, "end": 0.2},
        {"video": "a.mp4", "caption": "x", "start": 0.1, "end": 9},
        {"video": "b.jpg", "caption": "x"},
    ]
    (tmp_path / "captions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    whole = config("retrieval", tmp_path)
    assert [record.end for record in read_annotations(whole, "train").records] == [None, 0.2, 9, None]
    begun = config("retrieval", tmp_path, data={"first_seconds": 0.4})
    records = read_annotations(begun, "train").records
    assert [(record.start, record.end) for record in records] == [(None, 0.4), (0.1, 0.2), (0.1, 0.5), (None, None)]

    def brightest(record: VideoTextRecord) -> int:
        return int(video_text(whole, [record], training=False)[0].clip.pixels.max())

    first, everything = brightest(records[0]), brightest(read_annotations(whole, "train").records[0])
    assert first < everything - 30


@pytest.mark.parametrize(("seconds", "error"), [(0, "leave no frame"), (-1, "leave no frame")])
def test_no_seconds_are_refused(tmp_path: Path, seconds: float, error: str) -> None:
    with pytest.raises(ValueError, match=f"data.first_seconds: {seconds}.* {error}"):
        config("retrieval", tmp_path, data={"first_seconds": seconds})
